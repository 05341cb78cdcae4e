//! Answers that say no: RFC 9457 problems.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use octollm_events::carrier::{ErrorCode, TaskRejected};
use octollm_events::errors::{PROBLEM_JSON, problem};
use uuid::Uuid;

use crate::contract::Violations;
use crate::outcome::Refusal;

/// Seconds after which it is worth asking a dependency again.
const RETRY_AFTER_SECONDS: &str = "1";

/// A problem with `code`; `errors` are `(JSON pointer, message)` of each broken field.
pub fn answer(
    code: ErrorCode,
    detail: &str,
    task_id: Option<Uuid>,
    errors: &[(String, String)],
) -> HttpResponse {
    let task_id = task_id.map(|id| id.to_string());
    let problem = problem(code, detail, task_id.as_deref(), errors);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
    }
    response
        .content_type(PROBLEM_JSON)
        .body(problem.body.to_string())
}

/// A request that breaks its contract.
pub fn invalid(violations: &Violations) -> HttpResponse {
    answer(
        ErrorCode::InvalidRequest,
        &violations.to_string(),
        None,
        violations.pairs(),
    )
}

/// A refused submission.
pub fn refused(refusal: &Refusal) -> HttpResponse {
    match refusal {
        Refusal::Invalid(violations) => invalid(violations),
        Refusal::Rejected { task_id, rejection } => rejected(*task_id, rejection),
        Refusal::Conflict { task_id } => answer(
            ErrorCode::Conflict,
            &format!("task {task_id} exists with another content; nothing was changed"),
            Some(*task_id),
            &[],
        ),
        Refusal::TooLarge { task_id, message } => {
            answer(ErrorCode::PayloadTooLarge, message, Some(*task_id), &[])
        }
        Refusal::Unavailable { task_id, reason } => answer(
            ErrorCode::ArmUnavailable,
            &format!("{reason}; submit it again with task_id {task_id}, a repeat is harmless"),
            Some(*task_id),
            &[],
        ),
        Refusal::Internal { task_id, reason } => {
            answer(ErrorCode::InternalError, reason, Some(*task_id), &[])
        }
    }
}

fn rejected(task_id: Uuid, rejection: &TaskRejected) -> HttpResponse {
    let reasons = rejection.reasons.iter();
    let errors: Vec<(String, String)> = reasons
        .map(|reason| {
            (
                reason.field.clone().unwrap_or_default(),
                reason.message.clone(),
            )
        })
        .collect();
    answer(rejection.code, &rejection.message, Some(task_id), &errors)
}
