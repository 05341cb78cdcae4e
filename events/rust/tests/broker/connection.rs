use crate::facts::PATIENCE;
use octollm_events::Bus;
use octollm_events::bus::ConnectError;
use octollm_events::config::NatsSettings;
use octollm_events::testing::NatsServer;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::time::timeout;

#[tokio::test]
async fn readiness_follows_the_broker() {
    let mut server = NatsServer::start().await;
    let bus = server.connect("reflex").await;
    bus.check().await.unwrap();
    server.kill();
    timeout(PATIENCE, async { while bus.check().await.is_ok() {} })
        .await
        .expect("a dead broker is noticed");
    server.restart();
    timeout(PATIENCE, async {
        while bus.check().await.is_err() {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect("a broker that is back is noticed");
}

#[tokio::test]
async fn inboxes_carry_the_service_s_name() {
    let server = NatsServer::bare();
    let bus = server.connect("reflex").await;
    assert!(bus.client().new_inbox().starts_with("_INBOX_reflex."));
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_being_shown() {
    let settings = NatsSettings {
        url: "nats://user:secret@[".into(),
        ..NatsSettings::default()
    };
    let error = Bus::connect(&settings, "reflex").await.unwrap_err();
    assert!(matches!(error, ConnectError::Url(_)));
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn a_test_server_dies_with_its_owner_also_in_a_panic() {
    let server = NatsServer::bare();
    let port = server.port();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        let _server = server;
        panic!("as a failing test would");
    }));
    assert!(outcome.is_err());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn a_key_file_that_is_none_is_named_but_not_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret-canary").unwrap();
    for (path, missing) in [(file.path().to_owned(), false), ("no/such.nk".into(), true)] {
        let settings = NatsSettings {
            nkey_file: Some(path.clone()),
            ..NatsSettings::default()
        };
        let error = Bus::connect(&settings, "reflex").await.unwrap_err();
        match &error {
            ConnectError::KeyFile { .. } => assert!(missing),
            ConnectError::Key { .. } => assert!(!missing),
            other => panic!("{other}"),
        }
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && !text.contains("canary"));
    }
}
