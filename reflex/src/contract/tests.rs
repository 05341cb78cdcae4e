use super::*;
use serde_json::json;

fn pointers(document: &Value) -> Vec<String> {
    let Err(violations) = read(document) else {
        return Vec::new();
    };
    let mut pointers: Vec<String> = violations
        .pairs()
        .iter()
        .map(|(pointer, _)| pointer.clone())
        .collect();
    pointers.dedup();
    pointers
}

/// A submission whose `field` is `value`.
fn with(field: &str, value: Value) -> Value {
    let mut document = json!({ "goal": "g" });
    document[field] = value;
    document
}

fn text(length: usize) -> String {
    "é".repeat(length)
}

/// An object that is `size` bytes as compact JSON.
fn object(size: usize) -> Value {
    json!({ "k": "x".repeat(size - r#"{"k":""}"#.len()) })
}

fn step(id: &str) -> Value {
    json!({ "id": id, "action": { "kind": "command", "pipeline": [["true"]] } })
}

fn plan(steps: usize) -> Value {
    json!({ "steps": (0..steps).map(|index| step(&format!("s{index}"))).collect::<Vec<_>>() })
}

/// A plan that is `size` bytes as compact JSON.
fn plan_of_size(size: usize) -> Value {
    let mut plan = plan(3);
    let share = (size - plan.to_string().len()) / 3 + 1;
    let mut left = size - plan.to_string().len();
    for index in 0..3 {
        let length = share.min(left) - r#","stdin":"""#.len();
        plan["steps"][index]["action"]["stdin"] = json!("x".repeat(length));
        left -= share.min(left);
    }
    plan
}

fn files(count: usize) -> Value {
    (0..count)
        .map(|index| json!({ "path": format!("f{index:04}"), "type": "dir" }))
        .collect()
}

#[test]
fn every_limit_holds_on_both_sides() {
    let rows: Vec<(&str, Value, Value, &str)> = vec![
        ("goal", json!(text(10_000)), json!(text(10_001)), "/goal"),
        ("goal", json!("x"), json!(""), "/goal"),
        ("goal", json!(" x"), json!(" \n\t"), "/goal"),
        (
            "constraints",
            json!(vec!["c"; 20]),
            json!(vec!["c"; 21]),
            "/constraints",
        ),
        (
            "constraints",
            json!([text(500)]),
            json!([text(501)]),
            "/constraints/0",
        ),
        (
            "context",
            object(50 * 1024),
            object(50 * 1024 + 1),
            "/context",
        ),
        (
            "metadata",
            object(8 * 1024),
            object(8 * 1024 + 1),
            "/metadata",
        ),
        ("plan", plan(50), plan(51), "/plan/steps"),
        (
            "plan",
            plan_of_size(128 * 1024),
            plan_of_size(128 * 1024 + 1),
            "/plan",
        ),
        ("plan", plan(1), plan(0), "/plan/steps"),
        (
            "acceptance_criteria",
            json!(vec!["c"; 10]),
            json!(vec!["c"; 11]),
            "/acceptance_criteria",
        ),
        (
            "acceptance_criteria",
            json!([text(500)]),
            json!([text(501)]),
            "/acceptance_criteria/0",
        ),
        (
            "budget",
            json!({"max_tokens": 100_000}),
            json!({"max_tokens": 100_001}),
            "/budget/max_tokens",
        ),
        (
            "budget",
            json!({"max_tokens": 1}),
            json!({"max_tokens": 0}),
            "/budget/max_tokens",
        ),
        (
            "budget",
            json!({"max_cost_usd": 100}),
            json!({"max_cost_usd": 100.01}),
            "/budget/max_cost_usd",
        ),
        (
            "budget",
            json!({"max_cost_usd": 0}),
            json!({"max_cost_usd": -0.01}),
            "/budget/max_cost_usd",
        ),
        (
            "budget",
            json!({"max_time_seconds": 3600}),
            json!({"max_time_seconds": 3601}),
            "/budget/max_time_seconds",
        ),
        (
            "budget",
            json!({"max_retries": 10}),
            json!({"max_retries": 11}),
            "/budget/max_retries",
        ),
        ("priority", json!("critical"), json!("urgent"), "/priority"),
        ("files", files(1000), files(1001), "/files"),
        (
            "task_id",
            json!("3F2B8C1E-5D5B-4C0A-9A58-0D6E3A1F7B21"),
            json!("3f2b8c1e5d5b4c0a9a580d6e3a1f7b21"),
            "/task_id",
        ),
        (
            "retry_of",
            json!("3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"),
            json!("x"),
            "/retry_of",
        ),
        (
            "context",
            json!({"n": 9_007_199_254_740_991_u64}),
            json!({"n": 9_007_199_254_740_992_u64}),
            "/context",
        ),
        (
            "context",
            json!({"k": "\u{1}"}),
            json!({"k": "\0"}),
            "/context",
        ),
        (
            "metadata",
            json!({"\u{1}": 1}),
            json!({"\0": 1}),
            "/metadata",
        ),
    ];
    for (field, good, bad, pointer) in rows {
        assert_eq!(
            pointers(&with(field, good)),
            [""; 0],
            "{field} within its limit"
        );
        assert_eq!(
            pointers(&with(field, bad)),
            [pointer],
            "{field} beyond its limit"
        );
    }
}

#[test]
fn unknown_fields_are_refused_and_not_repeated() {
    let violations = read(&with("bob@example.org", json!(1))).expect_err("unknown field");
    assert!(!format!("{violations:?}").contains("bob"), "{violations:?}");
}

#[test]
fn what_is_missing_takes_its_default() {
    let submission = read(&json!({ "goal": "g", "budget": { "max_tokens": 5 } })).expect("valid");
    let budget = Budget {
        max_tokens: 5,
        ..DEFAULT_BUDGET
    };
    assert_eq!(submission.budget, budget);
    assert_eq!(submission.priority, Priority::Medium);
    assert!(
        submission.constraints.is_empty()
            && submission.context.is_empty()
            && submission.files.is_empty()
    );
}

#[test]
fn the_defaults_are_those_of_the_schema() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../events/schemas/task.submit/v1.json"))
            .expect("JSON");
    let budget = &schema["properties"]["budget"]["properties"];
    let default = serde_json::to_value(DEFAULT_BUDGET).expect("JSON");
    for (name, value) in default.as_object().expect("an object") {
        assert_eq!(&budget[name]["default"], value, "{name}");
    }
    assert_eq!(schema["properties"]["priority"]["default"], "medium");
}

#[test]
fn bodies_that_are_no_json_are_described_without_their_text() {
    for (body, message) in [
        (&b"{\"goal\": \"secret"[..], "must be one JSON document"),
        (&b"\xff\xfe"[..], "must be UTF-8"),
        (&b""[..], "must be one JSON document"),
        (&b"{} {}"[..], "must be one JSON document"),
        (&b"{\"goal\": \"\\ud800\"}"[..], "must be one JSON document"),
    ] {
        let violations = parse(body).expect_err("no JSON");
        let (_, text) = &violations.pairs()[0];
        assert!(
            text.starts_with(message) && !text.contains("secret"),
            "{text}"
        );
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(parse(deep.as_bytes()).is_err());
}
