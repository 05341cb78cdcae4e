//! The task contract: what a submission may say. The schema `task.submit` decides most of it; here is what a schema
//! can't say: sizes in bytes, the files as a whole, and JSON that other parts of the system can't hold.

use std::fmt;

use octollm_events::carrier::{
    Budget, Criterion, FileEntry, PlanDraft, Priority, TaskId, TaskSubmit,
};
use octollm_events::{Payload, schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::files;

/// Limits of the parts whose size counts as compact JSON, bytes.
const CONTEXT_BYTES: usize = 50 * 1024;
const METADATA_BYTES: usize = 8 * 1024;
const PLAN_BYTES: usize = 128 * 1024;

/// Largest integer that every JSON reader holds exactly (RFC 7493, 2.2).
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Most violations that one answer names.
const MAX_VIOLATIONS: usize = 50;

/// What is used where a submission sets no budget.
const DEFAULT_BUDGET: Budget = Budget {
    max_tokens: 10_000,
    max_cost_usd: 1.0,
    max_time_seconds: 300,
    max_retries: 3,
};

/// The places where a submission breaks the contract: JSON pointer (RFC 6901) and what would be right. Nothing of the
/// submission's text is repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// One violation.
    pub fn one(pointer: &str, message: impl Into<String>) -> Self {
        Self(vec![(pointer.to_owned(), message.into())])
    }

    /// Adds one; beyond the most that are named it is dropped.
    pub fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push((pointer.into(), message.into()));
        }
    }

    /// Nothing where nothing was added.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The pairs of pointer and message.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.0.len() == 1 { "place" } else { "places" };
        write!(
            formatter,
            "the request breaks the contract in {} {places}",
            self.0.len()
        )
    }
}

impl From<octollm_events::SchemaViolation> for Violations {
    fn from(violation: octollm_events::SchemaViolation) -> Self {
        let mut violations = Self::default();
        for (pointer, message) in violation.errors {
            violations.add(pointer, message);
        }
        violations
    }
}

/// A submission that keeps the contract, with every default filled in. Its JSON form is what the keyed digest covers.
#[derive(Clone, Debug, Serialize)]
pub struct Submission {
    /// The client's own id. The id says where the content goes, it is no part of it.
    #[serde(skip)]
    pub task_id: Option<Uuid>,
    pub goal: String,
    pub constraints: Vec<String>,
    pub context: Map<String, Value>,
    pub acceptance_criteria: Vec<Criterion>,
    pub budget: Budget,
    pub priority: Priority,
    pub retry_of: Option<TaskId>,
    pub plan: Option<PlanDraft>,
    pub metadata: Map<String, Value>,
    /// In the order of their paths.
    pub files: Vec<FileEntry>,
}

/// Reads JSON; the message says what is wrong with it and nothing of what it says.
pub fn parse(body: &[u8]) -> Result<Value, Violations> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if std::str::from_utf8(body).is_err() {
            "must be UTF-8"
        } else {
            "must be one JSON document"
        };
        Violations::one(
            "",
            format!("{what} (line {}, column {})", error.line(), error.column()),
        )
    })
}

/// The client's id in a document that may break the contract elsewhere.
pub fn task_id(document: &Value) -> Option<Uuid> {
    let text = document.get("task_id")?.as_str()?;
    // The hyphenated form alone: `Uuid` would read three more.
    (text.len() == 36).then(|| text.parse().ok()).flatten()
}

/// Checks a submission and fills in its defaults.
///
/// # Errors
///
/// Every violation that was found, 50 at most.
pub fn read(document: &Value) -> Result<Submission, Violations> {
    schema::validate(TaskSubmit::KIND, document)?;
    let mut violations = Violations::default();
    for (name, value) in document
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "files")
    {
        if let Some(message) = unholdable(value) {
            violations.add(format!("/{name}"), message);
        }
    }
    for (name, limit) in [
        ("context", CONTEXT_BYTES),
        ("metadata", METADATA_BYTES),
        ("plan", PLAN_BYTES),
    ] {
        let size = document
            .get(name)
            .map_or(0, |value| value.to_string().len());
        if size > limit {
            violations.add(
                format!("/{name}"),
                format!("must be at most {limit} bytes as JSON, has {size}"),
            );
        }
    }
    let id = task_id(document);
    let draft = TaskSubmit::deserialize(document).map_err(|_| {
        Violations::one(
            "",
            "integers must be written without a fraction and fit into 64 bits",
        )
    })?;
    let files = files::check(draft.files.unwrap_or_default(), &mut violations);
    violations.into_result()?;
    let budget = draft.budget.unwrap_or_default();
    Ok(Submission {
        task_id: id,
        goal: draft.goal,
        constraints: draft.constraints.unwrap_or_default(),
        context: draft.context.unwrap_or_default(),
        acceptance_criteria: draft.acceptance_criteria.unwrap_or_default(),
        budget: Budget {
            max_tokens: budget.max_tokens.unwrap_or(DEFAULT_BUDGET.max_tokens),
            max_cost_usd: budget.max_cost_usd.unwrap_or(DEFAULT_BUDGET.max_cost_usd),
            max_time_seconds: budget
                .max_time_seconds
                .unwrap_or(DEFAULT_BUDGET.max_time_seconds),
            max_retries: budget.max_retries.unwrap_or(DEFAULT_BUDGET.max_retries),
        },
        priority: draft.priority.unwrap_or(Priority::Medium),
        retry_of: draft.retry_of,
        plan: draft.plan,
        metadata: draft.metadata.unwrap_or_default(),
        files,
    })
}

/// Why a part of the system could not hold this value: PostgreSQL no NUL character, JavaScript no larger integer.
fn unholdable(value: &Value) -> Option<&'static str> {
    const NUL: &str = "must not contain the character U+0000";
    match value {
        Value::String(text) => text.contains('\0').then_some(NUL),
        Value::Array(items) => items.iter().find_map(unholdable),
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            if key.contains('\0') {
                Some(NUL)
            } else {
                unholdable(value)
            }
        }),
        Value::Number(number) => {
            let size = number
                .as_u64()
                .or_else(|| number.as_i64().map(i64::unsigned_abs));
            let unsafe_integer = size.is_some_and(|size| size > MAX_SAFE_INTEGER);
            unsafe_integer
                .then_some("integers beyond 2^53 - 1 must be written as strings (RFC 7493)")
        }
        Value::Null | Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
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
        let submission =
            read(&json!({ "goal": "g", "budget": { "max_tokens": 5 } })).expect("valid");
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
            serde_json::from_str(include_str!("../../events/schemas/task.submit/v1.json"))
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
}
