use crate::facts::{PATIENCE, append_somehow, note, task};
use octollm_events::consumer::{ATTEMPTS, Settled};
use octollm_events::gate::Unavailable;
use octollm_events::testing::NatsServer;
use octollm_events::{Bus, Consumer, Delivery, Log, Unhandled};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
    second.ack().await.unwrap();
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

/// What the broker says was given up.
async fn advisories(bus: &Bus) -> Vec<Value> {
    let stream = bus.jetstream().get_stream("ADVISORY").await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut found = Vec::new();
    for seq in 1..=last {
        let message = stream.get_raw_message(seq).await.unwrap();
        found.push(serde_json::from_slice(&message.payload).unwrap());
    }
    found
}

#[tokio::test]
async fn the_fifth_failure_gives_a_message_up_and_stops_no_other() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "reflex");
    let (unlucky, _) = task(&log, 1).await;
    for _ in 0..20 {
        task(&log, 1).await;
    }
    let mut consumer = Consumer::new(bus.clone(), "EVENTS", "planner", CancellationToken::new());
    let mut outcomes = BTreeMap::new();
    while outcomes.get("given_up") != Some(&1) || outcomes.get("done") != Some(&20) {
        let delivery = next(&mut consumer).await;
        let is_unlucky = delivery.event().unwrap().task_id == unlucky;
        let settled = delivery
            .settle(async {
                match (is_unlucky, delivery.failures()) {
                    (false, _) => Ok(()),
                    // A defect may quote what it worked on: that is told to nobody.
                    (true, 4) => panic!("ada@example.org"),
                    (true, _) => Err(Unhandled::Failed("Planted: a bug\nof two lines".to_owned())),
                }
            })
            .await;
        *outcomes.entry(settled.as_str()).or_insert(0) += 1;
    }
    assert_eq!(outcomes["failed"], ATTEMPTS - 1);
    let advisories = advisories(&bus).await;
    assert_eq!(advisories.len(), 1, "{advisories:?}");
    let (consumer, reason) = (&advisories[0]["consumer"], &advisories[0]["reason"]);
    assert_eq!(consumer, "planner");
    let expected = format!("task.received.{unlucky} panic: a defect of this service");
    assert_eq!(reason.as_str(), Some(expected.as_str()));
}

#[tokio::test]
async fn an_outage_stops_the_fetching_and_costs_no_attempt() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "reflex");
    for _ in 0..30 {
        task(&log, 1).await;
    }
    let mut consumer = Consumer::new(bus.clone(), "EVENTS", "planner", CancellationToken::new());
    let gate = consumer.gate();
    let outage = Unavailable {
        dependency: "store",
        reason: "it does not answer".to_owned(),
    };
    for _ in 0..4 {
        let delivery = next(&mut consumer).await;
        let settled = delivery.settle(async { Err(outage.clone().into()) }).await;
        assert_eq!(
            (settled, gate.check()),
            (Settled::Unavailable, Err(outage.clone()))
        );
    }
    // One was taken for each trial: nothing but the first request's messages was ever in hand.
    let mut done = BTreeSet::new();
    while done.len() < 30 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.settle(async { Ok(()) }).await, Settled::Done);
        done.insert(delivery.seq());
    }
    assert_eq!(gate.check(), Ok(()));
    assert!(advisories(&bus).await.is_empty());
}

#[tokio::test]
async fn what_can_never_be_read_is_given_up_at_once() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let subject = format!("task.received.{}", Uuid::new_v4());
    let sent = bus.client().request(subject.clone(), "{}".into()).await;
    sent.unwrap();
    let mut consumer = Consumer::new(bus.clone(), "EVENTS", "planner", CancellationToken::new());
    let delivery = next(&mut consumer).await;
    let settled = delivery
        .settle(async { Ok(delivery.event().map(|_| ())?) })
        .await;
    assert_eq!(settled, Settled::GivenUp);
    let reason = advisories(&bus).await[0]["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(
        reason.starts_with(&format!("{subject} Undecodable: ")),
        "{reason}"
    );
}
