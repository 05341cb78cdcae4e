use crate::facts::{assert_whole, first, note, rejected, task};
use octollm_events::carrier::TaskRejected;
use octollm_events::envelope::EventHash;
use octollm_events::log::ReadError;
use octollm_events::testing::NatsServer;
use octollm_events::{Log, NewEvent, Position};
use std::collections::BTreeMap;
use uuid::Uuid;

#[tokio::test]
async fn an_unknown_task_has_no_events() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    assert!(log.read(Uuid::new_v4(), None).await.unwrap().is_empty());
    assert_eq!(log.last_seq().await.unwrap(), 0);
}

#[tokio::test]
async fn a_long_task_is_read_whole_and_from_any_position_on() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (other, _) = task(&log, 2).await;
    let (task_id, end) = task(&log, 600).await;
    let events = log.read(task_id, None).await.unwrap();
    assert_whole(&events, 600);
    assert!(events.iter().all(|event| event.task_id == task_id));
    assert_eq!(events[599].position(), end);
    for version in [1, 256, 511, 599] {
        let after = events[version - 1].position();
        let rest = log.read(task_id, Some(&after)).await.unwrap();
        assert_eq!(rest.len(), 600 - version);
        assert_eq!(rest[0].version as usize, version + 1);
    }
    assert!(log.read(task_id, Some(&end)).await.unwrap().is_empty());
    assert_eq!(log.read(other, None).await.unwrap().len(), 2);
    assert_eq!(log.last_seq().await.unwrap(), 602);
}

#[tokio::test]
async fn after_a_conflict_a_read_waits_for_what_a_replica_does_not_show_yet() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (task_id, position) = task(&log, 1).await;
    let reading = tokio::spawn({
        let log = log.clone();
        async move { log.read_on(task_id, &position).await }
    });
    // It has asked before this is stored.
    tokio::task::yield_now().await;
    let event = note(task_id, "a");
    let last = log.append(task_id, &event, &position).await.unwrap();
    let events = reading.await.unwrap().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].position(), last);
    assert!(log.read_on(task_id, &last).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_event_that_does_not_link_up_breaks_the_chain() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let wrong_hash = |position| Position {
        hash: EventHash::NONE,
        ..position
    };
    let wrong_version = |position| Position {
        version: 7,
        ..position
    };
    let forgeries: [fn(Position) -> Position; 2] = [wrong_hash, wrong_version];
    for forge in forgeries {
        let (task_id, position) = task(&log, 2).await;
        // The broker checks the sequence only: the append goes through, the reader finds out.
        let forged = log
            .append(task_id, &note(task_id, "forged"), &forge(position))
            .await
            .unwrap();
        let error = log.read(task_id, None).await.unwrap_err();
        assert!(
            matches!(error, ReadError::ChainBroken { seq, .. } if seq == forged.seq),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_rejected_task_is_read_from_its_rejection() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("reflex").await, "reflex");
    let task_id = Uuid::new_v4();
    let rejection = NewEvent::first(task_id, &rejected()).unwrap();
    let position = log
        .append(task_id, &rejection, &Position::START)
        .await
        .unwrap();
    assert!(position.terminal);
    let events = log.read(task_id, None).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].decode::<TaskRejected>().unwrap(), rejected());
}

#[tokio::test]
async fn a_stored_message_without_an_envelope_is_undecodable() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "planner");
    let task_id = Uuid::new_v4();
    bus.client()
        .request(format!("task.received.{task_id}"), "{}".into())
        .await
        .unwrap();
    let error = log.read(task_id, None).await.unwrap_err();
    assert!(matches!(error, ReadError::Undecodable(_)), "{error}");
}

#[tokio::test]
async fn the_hash_is_that_of_the_stored_bytes() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("reflex").await, "reflex");
    let task_id = Uuid::new_v4();
    let traced = first(task_id).with_traceparent(Some(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ));
    let position = log
        .append(task_id, &traced, &Position::START)
        .await
        .unwrap();
    let event = log.read(task_id, None).await.unwrap().remove(0);
    assert_eq!(event.hash, position.hash);
    assert!(event.traceparent.is_some());
    let mut edited = event.headers.clone();
    edited.insert("ce-source".into(), "/octollm/other".into());
    let empty = BTreeMap::new();
    for (subject, headers, body) in [
        ("task.rejected.x", &event.headers, &event.body[..]),
        (event.subject.as_str(), &edited, &event.body[..]),
        (event.subject.as_str(), &empty, &event.body[..]),
        (event.subject.as_str(), &event.headers, b"{}"),
    ] {
        assert_ne!(EventHash::of(subject, headers, body), event.hash);
    }
}
