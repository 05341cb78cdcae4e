//! `/api/v1/tasks`: submissions and commands over HTTP.

use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use octollm_events::carrier::{ErrorCode, SourceChannel, TaskCancel, TaskResume};
use octollm_events::schema::Command;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::commands::{Commands, SendError};
use crate::contract::{self, Violations};
use crate::metrics::Metrics;
use crate::outcome::Origin;
use crate::problem;
use crate::reception::Reception;
use crate::request::{Body, json_body, principal, traceparent};
use crate::verdict::screen_note;

/// Longest reason or note, characters.
const MAX_NOTE: usize = 500;

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
        principal: principal(&request),
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
    let asked = Asked::read(
        "cancel", "reason", &request, &id, body, &reception, &metrics,
    );
    let Asked { task_id, note } = match asked {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let command = TaskCancel {
        task_id: task_id.to_string(),
        requested_by: principal(&request).as_ref().to_owned(),
        reason: note,
    };
    hand_on("cancel", task_id, &command, &request, &commands, &metrics).await
}

/// `POST /api/v1/tasks/{id}/resume`: 202 once the command is stored. The orchestrator then reads the task again and does
/// what is left to do.
pub async fn resume(
    request: HttpRequest,
    id: Path<String>,
    body: Body,
    reception: Data<Reception>,
    commands: Data<Commands>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let asked = Asked::read("resume", "note", &request, &id, body, &reception, &metrics);
    let Asked { task_id, note } = match asked {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let command = TaskResume {
        task_id: task_id.to_string(),
        requested_by: principal(&request).as_ref().to_owned(),
        note,
    };
    hand_on("resume", task_id, &command, &request, &commands, &metrics).await
}

/// What a request for a command says.
struct Asked {
    task_id: Uuid,
    /// Why, screened.
    note: Option<String>,
}

impl Asked {
    /// Reads a request whose body is empty or an object with the text `field` at most. The error is the answer to what
    /// can't become a command; nothing was sent then.
    fn read(
        name: &str,
        field: &str,
        request: &HttpRequest,
        id: &str,
        body: Body,
        reception: &Reception,
        metrics: &Metrics,
    ) -> Result<Self, Box<HttpResponse>> {
        let count = |outcome: &str| metrics.commands.with_label_values(&[name, outcome]).inc();
        let Some(task_id) = contract::task_id(&json!({ "task_id": id })) else {
            count("invalid");
            return Err(Box::new(problem::invalid(&Violations::one(
                "/task_id",
                "must be a UUID, as in 3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21",
            ))));
        };
        let body = json_body(request, body).map_err(|error| {
            count("malformed");
            Box::new(error.answer())
        })?;
        let text = note(&body, field).map_err(|violations| {
            count("invalid");
            Box::new(problem::invalid(&violations))
        })?;
        let note = match text.map(|text| screen_note(&text, reception.ruleset())) {
            None => None,
            Some(Some(clean)) => Some(clean),
            Some(None) => {
                count("rejected");
                let errors = [(
                    format!("/{field}"),
                    "reads like a prompt injection".to_owned(),
                )];
                let detail = format!("the {field} was refused; nothing was sent");
                let code = ErrorCode::InjectionBlocked;
                let answer = problem::answer(code, &detail, Some(task_id), &errors);
                return Err(Box::new(answer));
            }
        };
        Ok(Self { task_id, note })
    }
}

/// Stores a command for the orchestrator, and answers.
async fn hand_on<T: Command>(
    name: &str,
    task_id: Uuid,
    command: &T,
    request: &HttpRequest,
    commands: &Commands,
    metrics: &Metrics,
) -> HttpResponse {
    let count = |outcome: &str| metrics.commands.with_label_values(&[name, outcome]).inc();
    let trace = traceparent(request);
    match commands.send(command, trace.as_deref()).await {
        Ok(()) => {
            count("sent");
            tracing::info!(%task_id, command = name, "command sent");
            HttpResponse::Accepted()
                .json(json!({ "task_id": task_id, "status": format!("{name}_requested") }))
        }
        Err(SendError::Invalid(violation)) => {
            count("invalid");
            problem::invalid(&violation.into())
        }
        Err(error @ SendError::Unavailable(_)) => {
            count("unavailable");
            tracing::warn!(%task_id, command = name, %error, "command not sent");
            let code = ErrorCode::ArmUnavailable;
            problem::answer(code, &error.to_string(), Some(task_id), &[])
        }
    }
}

/// The text in a command's body, which may be empty.
fn note(body: &[u8], field: &str) -> Result<Option<String>, Violations> {
    if body.is_empty() {
        return Ok(None);
    }
    let Value::Object(mut members) = contract::parse(body)? else {
        return Err(Violations::one("", "must be an object"));
    };
    let note = match members.remove(field) {
        None | Some(Value::Null) => None,
        Some(Value::String(text))
            if (1..=MAX_NOTE).contains(&text.chars().count()) && !text.contains('\0') =>
        {
            Some(text)
        }
        Some(_) => {
            return Err(Violations::one(
                &format!("/{field}"),
                format!("must be a string of 1 to {MAX_NOTE} characters"),
            ));
        }
    };
    if !members.is_empty() {
        let message = format!("has an unknown field; known are {field}");
        return Err(Violations::one("", message));
    }
    Ok(note)
}
