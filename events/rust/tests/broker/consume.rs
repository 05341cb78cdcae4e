use crate::facts::{PATIENCE, append_somehow, note, task};
use octollm_events::testing::NatsServer;
use octollm_events::{Consumer, Delivery, Log};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(PATIENCE, consumer.next())
        .await
        .expect("a delivery comes");
    delivery.expect("it was not stopped")
}

#[tokio::test]
async fn every_event_is_delivered_also_after_a_crash_of_the_broker() {
    let mut server = NatsServer::start().await;
    let bus = server.connect("saga").await;
    let log = Log::new(bus.clone(), "planner");
    let mut consumer = Consumer::new(bus, "EVENTS", "saga", CancellationToken::new());
    let (task_id, mut position) = task(&log, 200).await;
    for version in 1..=200 {
        let delivery = next(&mut consumer).await;
        let event = delivery.event().unwrap();
        assert_eq!(
            (event.task_id, event.version, delivery.delivered()),
            (task_id, version, 1)
        );
        delivery.ack().await.unwrap();
    }
    server.restart();
    position = append_somehow(&log, task_id, &note(task_id, "late"), position).await;
    // The broker writes acks down late: a crash brings acknowledged messages back, but loses none.
    loop {
        let delivery = next(&mut consumer).await;
        delivery.ack().await.unwrap();
        if delivery.event().unwrap().position() == position {
            break;
        }
    }
}

#[tokio::test]
async fn a_nak_brings_it_back_after_its_delay() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "reflex");
    let mut consumer = Consumer::new(bus, "EVENTS", "planner", CancellationToken::new());
    task(&log, 1).await;
    let first = next(&mut consumer).await;
    let asked = Instant::now();
    let delay = Duration::from_millis(300);
    first.nak(delay).await.unwrap();
    let second = next(&mut consumer).await;
    assert!(asked.elapsed() >= delay);
    assert_eq!((second.seq(), second.delivered()), (first.seq(), 2));
    second.progress().await.unwrap();
    second.term().await.unwrap();
}

#[tokio::test]
async fn a_stopped_consumer_gives_back_what_it_fetched() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "reflex");
    for _ in 0..10 {
        task(&log, 1).await;
    }
    let stop = CancellationToken::new();
    let mut first = Consumer::new(bus.clone(), "EVENTS", "planner", stop.clone());
    let taken = next(&mut first).await;
    taken.ack().await.unwrap();
    stop.cancel();
    let started = Instant::now();
    assert!(first.next().await.is_none());

    let mut second = Consumer::new(bus, "EVENTS", "planner", CancellationToken::new());
    let mut rest = BTreeSet::new();
    while rest.len() < 9 {
        let delivery = next(&mut second).await;
        delivery.ack().await.unwrap();
        rest.insert(delivery.seq());
    }
    assert!(!rest.contains(&taken.seq()));
    // Long before the ack_wait of 30 s.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn commands_are_delivered_raw() {
    let server = NatsServer::start().await;
    let bus = server.connect("reflex").await;
    let mut consumer = Consumer::new(bus.clone(), "COMMANDS", "reflex", CancellationToken::new());
    bus.client()
        .request("task.submit", "{\"goal\":\"x\"}".into())
        .await
        .unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.subject(), delivery.seq()), ("task.submit", 1));
    assert_eq!(delivery.body().as_ref(), b"{\"goal\":\"x\"}");
    assert!(delivery.event().is_err());
    delivery.ack().await.unwrap();
}
