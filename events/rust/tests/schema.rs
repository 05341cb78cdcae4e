//! The schemas' own examples pass, what is wrong is named, and no message repeats what was sent.

use octollm_events::carrier::*;
use octollm_events::schema::{self, Payload};
use octollm_events::streams;
use serde_json::{Value, json};
use std::path::Path;

fn examples(kind: &str) -> Vec<Value> {
    let path = format!("../schemas/{kind}/v1.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    schema["examples"].as_array().unwrap().clone()
}

/// Validated, decoded and encoded again, an example is what it was.
fn assert_carried<T: Payload + std::fmt::Debug>() {
    for example in examples(T::KIND) {
        let carried: T = schema::decode(example.to_string().as_bytes()).unwrap();
        let again: Value = serde_json::from_slice(&schema::encode(&carried).unwrap()).unwrap();
        assert_eq!(again, example, "{}", T::KIND);
    }
}

#[test]
fn examples_survive_the_round_trip() {
    assert_carried::<PlanFailed>();
    assert_carried::<StepDispatched>();
    assert_carried::<StepExecuted>();
    assert_carried::<StepFailed>();
    assert_carried::<TaskApprove>();
    assert_carried::<TaskCancel>();
    assert_carried::<TaskCancelRequested>();
    assert_carried::<TaskCancelled>();
    assert_carried::<TaskCompleted>();
    assert_carried::<TaskFailed>();
    assert_carried::<TaskPlanned>();
    assert_carried::<TaskReceived>();
    assert_carried::<TaskRejected>();
    assert_carried::<TaskResume>();
    assert_carried::<TaskSubmit>();
}

fn errors(kind: &str, data: Value) -> Vec<(String, String)> {
    schema::validate(kind, &data).unwrap_err().errors
}

fn step(action: Value) -> Value {
    json!({ "goal": "x", "plan": { "steps": [{ "id": "a", "action": action }] } })
}

#[test]
fn every_error_names_its_place_and_its_limit() {
    let cases = [
        (json!({}), "/goal", "is required"),
        (json!({ "goal": " \n" }), "/goal", "must not be blank"),
        (
            json!({ "goal": "x".repeat(10_001) }),
            "/goal",
            "must have at most 10000 characters",
        ),
        (json!({ "goal": 7 }), "/goal", "must be string"),
        (
            json!({ "goal": "x", "constraints": vec!["c"; 21] }),
            "/constraints",
            "must have at most 20 items",
        ),
        (
            json!({ "goal": "x", "budget": { "max_tokens": 0 } }),
            "/budget/max_tokens",
            "must be at least 1",
        ),
        (
            json!({ "goal": "x", "budget": { "max_tokens": 1e9 } }),
            "/budget/max_tokens",
            "must be at most 100000",
        ),
        (
            json!({ "goal": "x", "priority": "now" }),
            "/priority",
            "must be one of low, medium, high, critical",
        ),
        (
            json!({ "goal": "x", "budget": { "x": 1 } }),
            "/budget",
            "has an unknown field; known are max_cost_usd, max_retries, max_time_seconds, max_tokens",
        ),
        (
            json!({ "goal": "x", "files": [{ "path": "/etc/passwd", "type": "file" }] }),
            "/files/0/path",
            "has the wrong form: A path relative to the workspace: no leading slash, no empty, '.' or '..' component, no control characters.",
        ),
        (
            step(json!({ "kind": "shell" })),
            "/plan/steps/0/action/kind",
            "must be one of check, command, file, http, script",
        ),
        (
            step(json!({ "kind": "command" })),
            "/plan/steps/0/action/pipeline",
            "is required",
        ),
        (
            step(json!({ "pipeline": [["true"]] })),
            "/plan/steps/0/action/kind",
            "is required",
        ),
        (
            step(json!({ "kind": "check", "criteria": [{ "kind": "exit_code", "code": 256 }] })),
            "/plan/steps/0/action/criteria/0/code",
            "must be at most 255",
        ),
        (
            json!({ "goal": "x", "acceptance_criteria": [{ "kind": "contains", "text": "" }] }),
            "/acceptance_criteria/0/text",
            "must not be empty",
        ),
        (
            json!({ "goal": "x", "acceptance_criteria": [{ "kind": "smells" }] }),
            "/acceptance_criteria/0/kind",
            "must be one of contains, equals, exit_code, file_exists, json_path, regex",
        ),
        (
            json!({ "goal": "x", "acceptance_criteria": [7] }),
            "/acceptance_criteria/0",
            "must be object or string",
        ),
        (
            json!({ "goal": "x", "acceptance_criteria": [""] }),
            "/acceptance_criteria/0",
            "must not be empty",
        ),
    ];
    for (data, pointer, message) in cases {
        let found = errors("task.submit", data.clone());
        assert_eq!(found, [(pointer.to_owned(), message.to_owned())], "{data}");
    }
}

#[test]
fn formats_count() {
    let mut dispatched = examples("step.dispatched").remove(0);
    dispatched["deadline"] = json!("2026-13-45T12:00:45.000Z");
    let found = errors("step.dispatched", dispatched);
    assert_eq!(
        found,
        [(
            "/deadline".to_owned(),
            "must be a valid date-time".to_owned()
        )]
    );
}

#[test]
fn no_message_repeats_what_was_sent() {
    const SECRET: &str = "canary-7f3a@example.org";
    let placed = [
        json!({ "goal": 1, SECRET: SECRET }),
        json!({ "goal": [SECRET], "priority": SECRET, "task_id": SECRET, "retry_of": SECRET }),
        json!({ "goal": "x", "budget": { SECRET: SECRET, "max_tokens": SECRET } }),
        json!({ "goal": "x", "files": [{ "path": format!("/{SECRET}"), "type": SECRET, "mode": SECRET }] }),
        json!({ "goal": "x", "acceptance_criteria": [{ "kind": SECRET }, { SECRET: 1 }, [SECRET]] }),
        json!({ "goal": "x", "acceptance_criteria": [{ "kind": "contains", "text": "a", SECRET: 1 }] }),
        step(json!({ "kind": SECRET })),
        step(json!({ "kind": "file", "op": SECRET, "path": "a", SECRET: 1 })),
        step(json!(SECRET)),
        json!(SECRET),
    ];
    for data in placed {
        let violation = schema::validate("task.submit", &data).unwrap_err();
        assert!(!violation.to_string().contains("canary"), "{violation}");
        assert!(
            !format!("{:?}", violation.errors).contains("canary"),
            "{violation:?}"
        );
    }
}

#[test]
fn what_is_no_json_or_no_kind_is_a_violation() {
    assert!(schema::decode::<TaskSubmit>(b"{\"goal\":\xff}").is_err());
    assert!(schema::decode::<TaskSubmit>(b"").is_err());
    assert!(schema::validate("plan", &json!({})).is_err());
    // Valid by the schema, but no Rust integer.
    let odd = br#"{"goal": "x", "budget": {"max_tokens": 1.0}}"#;
    let violation = schema::decode::<TaskSubmit>(odd).unwrap_err();
    assert!(violation.to_string().contains("integers"), "{violation}");
}

#[test]
fn the_message_limit_is_that_of_the_stream() {
    let limit = streams::setting("EVENTS", "max_msg_size").unwrap();
    assert_eq!(limit, octollm_events::log::MAX_MESSAGE_BYTES as u64);
}
