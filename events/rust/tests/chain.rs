//! The chain's verifier says of the shared vectors what they ask for.

use octollm_events::chain::{EXAMINED, Message, verify};
use octollm_events::envelope::EventHash;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const TASK: &str = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21";

fn vectors() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/chain");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn vectors_have_the_reports_that_they_name() {
    let cases = vectors();
    assert!(cases.len() > 40, "the vectors are there");
    for path in cases {
        let lines = fs::read_to_string(&path).unwrap();
        let messages: Vec<Message> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let wanted = fs::read_to_string(path.with_extension("report.json")).unwrap();
        let wanted: Value = serde_json::from_str(&wanted).unwrap();
        let found = serde_json::to_value(verify(messages)).unwrap();
        assert_eq!(found, wanted, "{}", path.display());
    }
}

#[test]
fn a_line_that_is_no_message_is_refused() {
    let good = r#"{"seq":1,"subject":"a.b.c","headers":{},"body":"e30=","stored_at":""}"#;
    assert_eq!(
        serde_json::from_str::<Message>(good).unwrap().body,
        b"{}".as_slice()
    );
    for bad in [
        good.replace("e30=", "e30"),
        good.replace("\"seq\":1", "\"seq\":0"),
        good.replace("\"headers\"", "\"header\""),
        good.replace("\"stored_at\"", "\"more\":1,\"stored_at\""),
    ] {
        assert!(serde_json::from_str::<Message>(&bad).is_err(), "{bad}");
    }
}

fn event(kind: &str, version: u64, prev: EventHash) -> Message {
    let headers: BTreeMap<String, String> = [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", version.to_string()),
        ("ce-type", format!("octollm.{kind}.v1")),
        ("ce-source", "/octollm/test".to_owned()),
        ("ce-time", "2026-11-22T12:00:00.000Z".to_owned()),
        ("ce-subject", TASK.to_owned()),
        ("ce-causationid", TASK.to_owned()),
        ("ce-taskversion", version.to_string()),
        ("ce-prevhash", prev.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Message {
        seq: version,
        subject: format!("{kind}.{TASK}"),
        headers,
        body: b"{}".to_vec(),
        stored_at: String::new(),
    }
}

fn chain(length: u64) -> Vec<Message> {
    let mut prev = EventHash::NONE;
    let mut messages = Vec::new();
    for version in 1..=length {
        let kind = if version == 1 {
            "task.received"
        } else {
            "step.executed"
        };
        let message = event(kind, version, prev);
        prev = EventHash::of(&message.subject, &message.headers, &message.body);
        messages.push(message);
    }
    messages
}

#[test]
fn a_long_chain_is_checked_to_its_end() {
    let length = 3 * EXAMINED as u64;
    let mut messages = chain(length);
    assert!(verify(messages.clone()).intact);
    messages[length as usize - 5].body = b"{ }".to_vec();
    let report = verify(messages);
    let findings = &report.tasks[0].findings;
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].seq, length - 4);
}

#[test]
fn of_a_broken_chain_only_so_much_is_examined() {
    let length = 3 * EXAMINED as u64;
    let mut messages = chain(length);
    messages.remove(1);
    let task = verify(messages).tasks.remove(0);
    assert!(!task.intact);
    assert_eq!(task.unexamined, length - 1 - EXAMINED as u64);
}
