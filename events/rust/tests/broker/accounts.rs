//! A service in an account of its own, as `octo up` has the broker run.

use crate::facts::{PATIENCE, task};
use crate::proxy::Proxy;
use octollm_events::config::NatsSettings;
use octollm_events::testing::NatsServer;
use octollm_events::{Bus, Consumer, Log};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_millis(5);

/// The streams are one account's, which whoever connects without a password uses; `saga` may pull, and nothing else.
const ACCOUNTS: &str = r#"
accounts {
  BUS {
    jetstream: enabled
    users: [{ user: bus, password: bus }]
    exports: [
      { service: "$JS.API.CONSUMER.MSG.NEXT.EVENTS.saga", response_type: stream, accounts: [SAGA] }
      { service: "$JS.ACK.EVENTS.saga.>", response_type: stream, accounts: [SAGA] }
    ]
  }
  SAGA {
    users: [{ user: saga, password: saga }]
    imports: [
      { service: { account: BUS, subject: "$JS.API.CONSUMER.MSG.NEXT.EVENTS.saga" } }
      { service: { account: BUS, subject: "$JS.ACK.EVENTS.saga.>" } }
    ]
  }
}
no_auth_user: bus
"#;

async fn as_saga(proxy: &Proxy) -> Bus {
    let settings = NatsSettings {
        url: proxy.url().replace("nats://", "nats://saga:saga@"),
        ..NatsSettings::default()
    };
    Bus::connect(&settings, "saga").await.unwrap()
}

/// Delivered a second time is what a message is that waited for its `ack_wait`.
#[tokio::test]
async fn no_message_waits_for_its_ack_wait_whatever_becomes_of_the_connection() {
    let mut server = NatsServer::start_with(ACCOUNTS).await;
    let proxy = Proxy::start(server.port()).await;
    let log = Log::new(server.connect("reflex").await, "reflex");
    let bus = as_saga(&proxy).await;
    let mut consumer = Consumer::new(bus.clone(), "EVENTS", "saga", CancellationToken::new());
    let mut known = HashSet::new();
    for happening in ["start", "lost connection", "lost connection", "restart"] {
        let seen = known.clone();
        let waiting = tokio::spawn(async move {
            loop {
                let delivery = timeout(PATIENCE, consumer.next())
                    .await
                    .expect("a delivery comes")
                    .expect("it was not stopped");
                delivery.ack().await.unwrap();
                // A broker that was killed forgets its latest acks, and delivers again what they were for.
                if !seen.contains(&delivery.event().unwrap().task_id) {
                    return (delivery, consumer);
                }
            }
        });
        let made = bus.client().statistics().connects.load(Ordering::SeqCst);
        match happening {
            "lost connection" => proxy.cut(),
            "restart" => server.restart(),
            _ => {}
        }
        let reconnected = async {
            while happening != "start"
                && bus.client().statistics().connects.load(Ordering::SeqCst) == made
            {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, reconnected).await.expect("it reconnects");
        let (task_id, _) = task(&log, 1).await;
        known.insert(task_id);
        let (delivery, reader) = waiting.await.unwrap();
        let delivered = delivery.event().unwrap().task_id;
        assert_eq!(delivered, task_id, "after {happening}");
        assert_eq!(delivery.delivered(), 1, "after {happening}");
        consumer = reader;
    }
}
