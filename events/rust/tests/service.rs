//! The stop signal. Alone in its process: the signal goes to all of it.

use octollm_events::service::{start_logging, stop_signal};
use std::process::{Command, id};
use std::time::Duration;

#[tokio::test]
async fn sigterm_asks_the_service_to_stop() {
    start_logging();
    let stop = stop_signal().unwrap();
    assert!(!stop.is_cancelled());
    let sent = Command::new("kill")
        .args(["-TERM", &id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    tokio::time::timeout(Duration::from_secs(10), stop.cancelled())
        .await
        .expect("the signal is taken");
}
