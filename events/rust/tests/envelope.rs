//! Ids, hashes, times and parsing, without a broker. The fixed values were computed by the Python side.

use async_nats::HeaderMap;
use octollm_events::envelope::{
    Event, EventHash, OCTOLLM, event_id, milliseconds, submitted_task_id,
};
use octollm_events::{NewEvent, Position};
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::{Uuid, uuid};

const TASK: Uuid = uuid!("3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21");

#[test]
fn ids_are_those_of_the_other_language() {
    assert_eq!(OCTOLLM, Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"octollm"));
    assert_eq!(
        event_id(TASK, TASK, "task.received", ""),
        uuid!("a1889ae4-2ff0-5407-92ba-01a0fa9a0110")
    );
    let cause = uuid!("0d9d2e0c-6b0c-5d3e-8f70-0a5e2f1b3c4d");
    assert_eq!(
        event_id(TASK, cause, "step.executed", "1/echo/1"),
        uuid!("7aa7db2c-4038-5a50-a63e-ab4717720f56")
    );
}

#[test]
fn a_raw_submission_has_the_id_of_its_place_in_the_stream() {
    let stored_at = datetime!(2026-11-22 12:00:00.123456789 UTC);
    let created = "2026-11-22T11:58:03.214541Z";
    let id = submitted_task_id(created, 7, stored_at);
    let name = format!("{created}/7/1795348800123456789");
    assert_eq!(id, Uuid::new_v5(&OCTOLLM, name.as_bytes()));
}

#[test]
fn the_hash_covers_subject_envelope_and_body_only() {
    let headers: BTreeMap<String, String> = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a"),
        ("content-type", "application/json"),
        ("ce-subject", "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"),
        ("Nats-Msg-Id", "a"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let subject = format!("task.received.{TASK}");
    let hash = EventHash::of(&subject, &headers, br#"{"goal":"x"}"#);
    assert_eq!(
        hash.to_string(),
        "cc36e335c73d468e5673b76801a1eb8fdd24e9af780a28050c6fa4b3434838d7"
    );
    assert_eq!(hash.to_string().parse::<EventHash>().unwrap(), hash);
    assert_eq!(Position::START.hash.to_string(), "0".repeat(64));
}

#[test]
fn times_have_milliseconds_and_are_utc() {
    for (at, text) in [
        (
            datetime!(2026-11-22 12:00:45 UTC),
            "2026-11-22T12:00:45.000Z",
        ),
        (
            datetime!(2026-11-22 12:00:45.9999 UTC),
            "2026-11-22T12:00:45.999Z",
        ),
        (
            datetime!(2026-11-22 01:00:00.5 +02:00),
            "2026-11-21T23:00:00.500Z",
        ),
    ] {
        assert_eq!(milliseconds(at), text);
    }
}

const SUBJECT: &str = "task.cancel_requested.3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21";

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "a1889ae4-2ff0-5407-92ba-01a0fa9a0110"),
        ("ce-type", "octollm.task.cancel_requested.v1"),
        ("ce-source", "/octollm/orchestrator"),
        ("ce-time", "2026-11-22T12:00:45.000Z"),
        ("ce-subject", "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"),
        ("content-type", "application/json"),
        ("ce-causationid", "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"),
        ("ce-taskversion", "2"),
        (
            "ce-prevhash",
            "cc36e335c73d468e5673b76801a1eb8fdd24e9af780a28050c6fa4b3434838d7",
        ),
        ("Nats-Msg-Id", "a1889ae4-2ff0-5407-92ba-01a0fa9a0110"),
    ] {
        headers.insert(name, value);
    }
    headers
}

fn parse(subject: &str, headers: &HeaderMap) -> Result<Event, String> {
    let body = r#"{"requested_by":"operator"}"#.into();
    Event::parse(subject, headers, body, 9, OffsetDateTime::UNIX_EPOCH)
        .map_err(|undecodable| undecodable.to_string())
}

#[test]
fn an_envelope_is_read() {
    let event = parse(SUBJECT, &headers()).unwrap();
    assert_eq!(event.kind, "task.cancel_requested");
    assert_eq!((event.task_id, event.seq, event.version), (TASK, 9, 2));
    assert_eq!(event.headers.len(), 10, "foreign headers are left out");
    let payload: octollm_events::carrier::TaskCancelRequested = event.decode().unwrap();
    assert_eq!(payload.requested_by, "operator");
    assert!(
        event
            .decode::<octollm_events::carrier::TaskCancelled>()
            .is_err()
    );
}

#[test]
fn a_broken_envelope_is_refused_and_named() {
    for missing in [
        "ce-id",
        "ce-type",
        "ce-subject",
        "ce-taskversion",
        "ce-prevhash",
        "ce-time",
    ] {
        let without: HeaderMap = headers()
            .iter()
            .filter(|(name, _)| name.to_string() != missing)
            .map(|(name, values)| (name.clone(), values[0].clone()))
            .collect();
        let error = parse(SUBJECT, &without).unwrap_err();
        assert!(error.contains(missing), "{error}");
    }
    for (name, value) in [
        ("ce-id", "7"),
        ("ce-type", "octollm.task.cancelled.v1"),
        ("ce-type", "octollm.task.cancel_requested.vX"),
        ("ce-subject", "3F2B8C1E-5D5B-4C0A-9A58-0D6E3A1F7B22"),
        ("ce-taskversion", "-1"),
        ("ce-prevhash", "00"),
    ] {
        let mut wrong = headers();
        wrong.insert(name, value);
        parse(SUBJECT, &wrong).unwrap_err();
    }
    let mut twice = headers();
    twice.append("ce-source", "/octollm/executor");
    assert!(parse(SUBJECT, &twice).unwrap_err().contains("ce-source"));
    parse("task", &headers()).unwrap_err();
    parse("task.cancel_requested.other", &headers()).unwrap_err();
}

#[test]
fn an_event_from_json_is_checked() {
    let good = json!({ "requested_by": "operator" });
    let event = NewEvent::from_json("task.cancel_requested", &good, TASK, "").unwrap();
    assert_eq!(
        event.id(TASK),
        event_id(TASK, TASK, "task.cancel_requested", "")
    );
    NewEvent::from_json("task.cancel_requested", &json!({}), TASK, "").unwrap_err();
    let command = json!({ "task_id": TASK, "requested_by": "operator" });
    NewEvent::from_json("task.cancel", &command, TASK, "").unwrap_err();
    NewEvent::from_json("task.unheard", &good, TASK, "").unwrap_err();
}
