//! `/api/v1/tasks`: submissions and commands over HTTP.

use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use octollm_events::carrier::{ErrorCode, SourceChannel, TaskCancel};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::commands::{Commands, SendError};
use crate::contract::{self, Violations};
use crate::metrics::Metrics;
use crate::outcome::Origin;
use crate::problem;
use crate::reception::Reception;
use crate::request::{Body, PRINCIPAL, json_body, traceparent};
use crate::verdict::screen_note;

/// Longest reason, characters.
const MAX_REASON: usize = 500;

/// `POST /api/v1/tasks`: 202 once `task.received` is stored; a repeat of the same submission under its id is harmless.
pub async fn submit(
    request: HttpRequest,
    body: Body,
    reception: Data<Reception>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let count = |outcome: &str| {
        metrics
            .submissions
            .with_label_values(&["http", outcome])
            .inc()
    };
    let body = match json_body(&request, body) {
        Ok(body) => body,
        Err(error) => {
            count("malformed");
            return error.answer();
        }
    };
    let submission = match contract::parse(&body).and_then(|document| contract::read(&document)) {
        Ok(submission) => submission,
        Err(violations) => {
            count("invalid");
            return problem::invalid(&violations);
        }
    };
    let task_id = submission.task_id.unwrap_or_else(Uuid::new_v4);
    let origin = Origin {
        channel: SourceChannel::Http,
        principal: PRINCIPAL,
        traceparent: traceparent(&request),
    };
    match reception
        .submit(task_id, submission, body.len(), &origin)
        .await
    {
        Ok(receipt) => {
            count(if receipt.repeated {
                "repeated"
            } else {
                "received"
            });
            tracing::info!(%task_id, seq = receipt.seq, repeated = receipt.repeated, channel = "http", "task received");
            HttpResponse::Accepted()
                .insert_header((LOCATION, format!("/api/v1/tasks/{task_id}")))
                .json(json!({ "task_id": task_id, "seq": receipt.seq, "status": "pending" }))
        }
        Err(refusal) => {
            count(refusal.outcome());
            tracing::info!(%task_id, outcome = refusal.outcome(), channel = "http", "submission refused");
            problem::refused(&refusal)
        }
    }
}

/// `POST /api/v1/tasks/{id}/cancel`: 202 once the command is stored. Whether the task exists is the orchestrator's to say.
pub async fn cancel(
    request: HttpRequest,
    id: Path<String>,
    body: Body,
    reception: Data<Reception>,
    commands: Data<Commands>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let count = |outcome: &str| {
        metrics
            .commands
            .with_label_values(&["cancel", outcome])
            .inc()
    };
    let Some(task_id) = contract::task_id(&json!({ "task_id": *id })) else {
        count("invalid");
        return problem::invalid(&Violations::one(
            "/task_id",
            "must be a UUID, as in 3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21",
        ));
    };
    let reason = match json_body(&request, body).map(|body| reason(&body)) {
        Ok(Ok(reason)) => reason,
        Ok(Err(violations)) => {
            count("invalid");
            return problem::invalid(&violations);
        }
        Err(error) => {
            count("malformed");
            return error.answer();
        }
    };
    let reason = match reason.map(|text| screen_note(&text, reception.ruleset())) {
        None => None,
        Some(Some(clean)) => Some(clean),
        Some(None) => {
            count("rejected");
            let errors = [(
                "/reason".to_owned(),
                "reads like a prompt injection".to_owned(),
            )];
            let detail = "the reason was refused; nothing was sent";
            return problem::answer(ErrorCode::InjectionBlocked, detail, Some(task_id), &errors);
        }
    };
    let command = TaskCancel {
        task_id: task_id.to_string(),
        requested_by: PRINCIPAL.to_owned(),
        reason,
    };
    match commands
        .send(&command, traceparent(&request).as_deref())
        .await
    {
        Ok(()) => {
            count("sent");
            tracing::info!(%task_id, command = "cancel", "command sent");
            HttpResponse::Accepted()
                .json(json!({ "task_id": task_id, "status": "cancel_requested" }))
        }
        Err(SendError::Invalid(violation)) => {
            count("invalid");
            problem::invalid(&violation.into())
        }
        Err(error @ SendError::Unavailable(_)) => {
            count("unavailable");
            tracing::warn!(%task_id, command = "cancel", %error, "command not sent");
            problem::answer(
                ErrorCode::ArmUnavailable,
                &error.to_string(),
                Some(task_id),
                &[],
            )
        }
    }
}

/// The reason in a command's body, which may be empty.
fn reason(body: &[u8]) -> Result<Option<String>, Violations> {
    if body.is_empty() {
        return Ok(None);
    }
    let Value::Object(mut members) = contract::parse(body)? else {
        return Err(Violations::one("", "must be an object"));
    };
    let reason = match members.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(text))
            if (1..=MAX_REASON).contains(&text.chars().count()) && !text.contains('\0') =>
        {
            Some(text)
        }
        Some(_) => {
            return Err(Violations::one(
                "/reason",
                format!("must be a string of 1 to {MAX_REASON} characters"),
            ));
        }
    };
    if !members.is_empty() {
        return Err(Violations::one(
            "",
            "has an unknown field; known are reason",
        ));
    }
    Ok(reason)
}
