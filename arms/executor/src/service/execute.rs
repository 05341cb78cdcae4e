//! `POST /api/v1/execute`: one step on the operator's word, past planner and log.
//!
//! It asks for two things: the operator's key, and a capability for just this step with the audience
//! [`EXECUTE`], good for one use whatever restarts in between. The step runs in an empty workspace of its own, on the same engine and in the same places as the steps of tasks. Who hangs up has it killed.

use std::sync::Arc;
use std::time::SystemTime;

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::web::{Bytes, Data, PayloadConfig, ServiceConfig, post};
use actix_web::{Error, HttpRequest, HttpResponse};
use octollm_events::carrier::{ErrorCode, StepDispatched};
use octollm_events::envelope::milliseconds;
use octollm_events::errors::{PROBLEM_JSON, problem};
use octollm_events::schema;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::claim::{self, Claimed};
use super::engine::Engine;
use super::notary::Case;
use super::operator::OperatorKey;
use super::worker::ARM;
use crate::capability::{EXECUTE, Use};
use crate::report;
use crate::step::{Assignment, Outcome, Recorded};

/// Where it is.
pub const PATH: &str = "/api/v1/execute";
/// Bytes of a request; as of an event, which would carry the same step.
const MAX_BODY_BYTES: usize = octollm_events::log::MAX_MESSAGE_BYTES;
/// Seconds after which it is worth asking again.
const RETRY_AFTER_SECONDS: &str = "1";

/// The endpoint.
#[derive(Clone)]
pub struct Endpoint {
    /// What runs the step.
    pub engine: Arc<Engine>,
    /// Who may ask; nobody without one.
    pub key: Option<OperatorKey>,
    /// Where the steps run: not on the HTTP server's thread, and counted among what is waited for at the end.
    pub working: TaskTracker,
    /// The runtime of these.
    pub runtime: Handle,
    /// The executor is to stop: no new step.
    pub stop: CancellationToken,
}

impl Endpoint {
    /// Adds the route.
    pub fn routes(&self, app: &mut ServiceConfig) {
        app.app_data(Data::new(self.clone()))
            .app_data(PayloadConfig::new(MAX_BODY_BYTES))
            .route(PATH, post().to(execute));
    }
}

/// A request: the step as it would stand in a dispatch, and the token for the first attempt of plan 1 of that task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    task_id: Uuid,
    step: Value,
    capability: String,
}

/// An answer that says no.
struct Refusal {
    code: ErrorCode,
    detail: String,
    task_id: Option<Uuid>,
    errors: Vec<(String, String)>,
}

impl Refusal {
    fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            task_id: None,
            errors: Vec::new(),
        }
    }

    fn of(self, task_id: Uuid) -> Self {
        Self {
            task_id: Some(task_id),
            ..self
        }
    }

    fn response(&self) -> HttpResponse {
        let task_id = self.task_id.map(|id| id.to_string());
        let problem = problem(self.code, &self.detail, task_id.as_deref(), &self.errors);
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        match status {
            StatusCode::UNAUTHORIZED => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
            .content_type(PROBLEM_JSON)
            .body(problem.body.to_string())
    }
}

async fn execute(
    request: HttpRequest,
    body: Result<Bytes, Error>,
    endpoint: Data<Endpoint>,
) -> HttpResponse {
    let answered = endpoint.answer(&request, body).await;
    let result = match &answered {
        Ok((_, outcome)) => outcome
            .failure
            .as_ref()
            .map_or("executed".to_owned(), |failure| failure.code.to_string()),
        Err(refusal) => refusal.code.to_string(),
    };
    let executions = &endpoint.engine.metrics.executions;
    executions.with_label_values(&[&result]).inc();
    match answered {
        Ok((result, _)) => HttpResponse::Ok().json(json!({ "result": result })),
        Err(refusal) => refusal.response(),
    }
}

impl Endpoint {
    async fn answer(
        &self,
        request: &HttpRequest,
        body: Result<Bytes, Error>,
    ) -> Result<(Value, Outcome), Refusal> {
        self.admit(request)?;
        let body = json_body(request, body)?;
        let Request {
            task_id,
            step,
            capability,
        } = serde_json::from_slice(&body).map_err(|_| {
            Refusal::new(
                ErrorCode::InvalidRequest,
                "the body must be {task_id: UUID, step: a step of a plan, capability: string}",
            )
        })?;
        let dispatched = dispatched(step, capability).map_err(|refusal| refusal.of(task_id))?;
        let outcome = self
            .run(task_id, &dispatched, &body)
            .await
            .map_err(|refusal| refusal.of(task_id))?;
        let case = Case {
            task_id,
            dispatched: &dispatched,
            action: Use::of(EXECUTE, task_id, &dispatched, &body).action,
            dispatch: None,
            outcome: &outcome,
            ended_at: OffsetDateTime::now_utc(),
        };
        let result = report::event(task_id, &dispatched, &outcome, None)
            .ok()
            .and_then(|event| self.engine.notary.sign(&case, &event, None).ok())
            .and_then(|signed| serde_json::from_slice(signed.event.body()).ok());
        let result = result.ok_or_else(|| {
            let detail = "the step has run, and its result can't be told";
            Refusal::new(ErrorCode::InternalError, detail).of(task_id)
        })?;
        Ok((result, outcome))
    }

    fn admit(&self, request: &HttpRequest) -> Result<(), Refusal> {
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let detail = match &self.key {
            Some(key) if key.admits(authorization) => return Ok(()),
            Some(_) => "the header authorization must bring the operator's key (Bearer …)",
            None => {
                "this executor has no operator's key, so it lets nobody in here; set OCTO_EXECUTOR__OPERATOR_KEY_FILE"
            }
        };
        Err(Refusal::new(ErrorCode::Unauthorized, detail))
    }

    /// Runs the step once everything allows it. What is refused before the token is spent may be asked again with it.
    async fn run(
        &self,
        task_id: Uuid,
        dispatched: &StepDispatched,
        body: &[u8],
    ) -> Result<Outcome, Refusal> {
        let asked = Use::of(EXECUTE, task_id, dispatched, body);
        let token = &dispatched.capability;
        let now = SystemTime::now();
        let verified = self
            .engine
            .verifier
            .verify_within(token, &asked, now, claim::memory());
        let grant = verified.map_err(|violation| {
            tracing::warn!(%task_id, %violation, "a request to run a step is refused");
            Refusal::new(ErrorCode::CapabilityViolation, violation.to_string())
        })?;
        let assignment = Assignment::parse(&dispatched.step)
            .map_err(|failure| Refusal::new(failure.code, failure.message))?;
        let unavailable = |detail: &dyn std::fmt::Display| {
            Refusal::new(ErrorCode::ArmUnavailable, detail.to_string())
        };
        if self.stop.is_cancelled() {
            return Err(unavailable(&"this executor is stopping"));
        }
        let place = Arc::clone(&self.engine.places).try_acquire_owned();
        let place = place
            .map_err(|_| unavailable(&"as many steps run as may; ask again with the same token"))?;
        match self.engine.claims.spend(&grant.id).await {
            Ok(Claimed::Now(_)) => {}
            Ok(Claimed::Before { .. }) => {
                let detail = "the capability was used before; nothing was started";
                return Err(Refusal::new(ErrorCode::Replayed, detail));
            }
            Err(error) => return Err(unavailable(&error)),
        }
        tracing::info!(%task_id, step = dispatched.step.id, "the operator's step starts");
        let cancel = self.engine.abandon.child_token();
        // Dropped with this request, if the client hangs up.
        let _hang_up = cancel.clone().drop_guard();
        let engine = Arc::clone(&self.engine);
        let running = self.working.spawn_on(
            async move {
                let outcome = engine
                    .execute(assignment, Arc::default(), Recorded::new(), &cancel)
                    .await;
                drop(place);
                outcome
            },
            &self.runtime,
        );
        let outcome = running.await.map_err(|error| {
            Refusal::new(
                ErrorCode::InternalError,
                format!("the step was lost: {error}"),
            )
        })?;
        let code = outcome.failure.as_ref().map(|failure| failure.code);
        if code == Some(ErrorCode::Cancelled) {
            return Err(unavailable(
                &"this executor is stopping, and the step was killed; its token is used up",
            ));
        }
        Ok(outcome)
    }
}

/// The body of a request that says it is JSON: another media type is what a foreign web page can send unasked.
fn json_body(request: &HttpRequest, body: Result<Bytes, Error>) -> Result<Bytes, Refusal> {
    let body = body.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
            ErrorCode::PayloadTooLarge,
            format!("the body has more than {MAX_BODY_BYTES} bytes"),
        ),
        _ => Refusal::new(ErrorCode::InvalidRequest, "the body broke off"),
    })?;
    let media_type = request.headers().get(CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(body)
    } else {
        let detail = "the header content-type must be application/json";
        Err(Refusal::new(ErrorCode::InvalidRequest, detail))
    }
}

/// The request as the dispatch that it stands for, checked against its schema.
fn dispatched(step: Value, capability: String) -> Result<StepDispatched, Refusal> {
    let dispatched = json!({
        "plan_version": 1, "attempt": 1, "purpose": "run", "step": step,
        "deadline": milliseconds(OffsetDateTime::now_utc()), "capability": capability,
    });
    let dispatched: StepDispatched =
        schema::decode(dispatched.to_string().as_bytes()).map_err(|violation| Refusal {
            errors: violation.errors.clone(),
            ..Refusal::new(ErrorCode::InvalidRequest, violation.to_string())
        })?;
    if dispatched.step.arm == ARM {
        Ok(dispatched)
    } else {
        let errors = vec![("/step/arm".to_owned(), format!("must be {ARM}"))];
        Err(Refusal {
            errors,
            ..Refusal::new(ErrorCode::InvalidRequest, "the step is for another arm")
        })
    }
}
