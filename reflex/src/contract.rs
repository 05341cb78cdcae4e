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
mod tests;
