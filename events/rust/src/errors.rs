//! The one list of errors, and RFC 9457 problems made from it.

use crate::carrier::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What is fixed for a code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorInfo {
    /// The code.
    pub code: ErrorCode,
    /// HTTP status.
    pub http_status: u16,
    /// Exit code of `octo`.
    pub exit_code: u8,
    /// One line.
    pub title: String,
    /// What to do next.
    pub hint: String,
}

static CATALOGUE: LazyLock<HashMap<ErrorCode, ErrorInfo>> = LazyLock::new(|| {
    let rows: Vec<ErrorInfo> = serde_json::from_str(include_str!("../../errors.json"))
        .expect("errors.json has the contract's form");
    rows.into_iter().map(|row| (row.code, row)).collect()
});

impl ErrorCode {
    /// What is fixed for this code.
    pub fn info(self) -> &'static ErrorInfo {
        &CATALOGUE[&self]
    }
}

/// An RFC 9457 problem: HTTP status and body, media type [`PROBLEM_JSON`].
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The document.
    pub body: Value,
}

/// Makes a problem. `errors` are `(JSON pointer, message)` of each broken field.
pub fn problem(
    code: ErrorCode,
    detail: &str,
    task_id: Option<&str>,
    errors: &[(String, String)],
) -> Problem {
    let info = code.info();
    let mut body = json!({
        "type": format!("urn:octollm:error:{code}"),
        "title": info.title,
        "status": info.http_status,
        "detail": detail,
        "code": code,
        "hint": info.hint,
    });
    if let Some(task_id) = task_id {
        body["task_id"] = json!(task_id);
    }
    if !errors.is_empty() {
        let errors = errors
            .iter()
            .map(|(pointer, message)| json!({ "pointer": pointer, "message": message }));
        body["errors"] = errors.collect();
    }
    Problem {
        status: info.http_status,
        body,
    }
}
