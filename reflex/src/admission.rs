//! Admission of HTTP requests: who asks, and whether the limits let it in. It comes before a body is read.

use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use octollm_events::carrier::ErrorCode;

use crate::caller::Callers;
use crate::limits::{Caller, Endpoint, Limits, Taken};
use crate::problem;

/// What the buckets say, in the form that most clients read (draft-ietf-httpapi-ratelimit-headers-03).
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Lets requests in.
pub struct Admission {
    callers: Callers,
    limits: Arc<Limits>,
}

impl Admission {
    /// Of those who may ask and what they may do.
    pub const fn new(callers: Callers, limits: Arc<Limits>) -> Self {
        Self { callers, limits }
    }

    /// Takes what a request costs besides the one token that let it in. The error is the answer to one that costs more
    /// than is left.
    pub async fn charge(
        &self,
        request: &HttpRequest,
        endpoint: Endpoint,
        cost: u32,
    ) -> Result<(), HttpResponse> {
        let caller = request.extensions().get::<Caller>().cloned();
        let (Some(caller), 1..) = (caller, cost) else {
            return Ok(());
        };
        match self.limits.take(&caller, endpoint, cost).await {
            Some(refused) if !refused.admitted => Err(refusal(&refused, cost)),
            Some(taken) => {
                request.extensions_mut().insert(taken);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What a path is for; probes and what tells of the service itself are never limited.
fn endpoint(pattern: &str) -> Option<Endpoint> {
    match pattern {
        "/api/v1/tasks" => Some(Endpoint::Tasks),
        "/api/v1/tasks/{id}/cancel" | "/api/v1/tasks/{id}/resume" => Some(Endpoint::Commands),
        "/api/v1/reflex/process"
        | "/process"
        | "/api/v1/reflex/process/batch"
        | "/process/batch" => Some(Endpoint::Process),
        _ => None,
    }
}

/// Lets a request in or answers it, and tells the caller what is left.
pub async fn admit<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let admission = request.app_data::<Data<Admission>>().cloned();
    let endpoint = request.match_pattern().as_deref().and_then(endpoint);
    let (Some(admission), Some(endpoint)) = (admission, endpoint) else {
        return Ok(next.call(request).await?.map_into_left_body());
    };
    let Ok(caller) = admission
        .callers
        .caller(request.headers(), request.peer_addr())
    else {
        return Ok(request.into_response(unknown_key()).map_into_right_body());
    };
    let taken = admission.limits.take(&caller, endpoint, 1).await;
    if let Some(refused) = taken.as_ref().filter(|taken| !taken.admitted) {
        return Ok(request
            .into_response(refusal(refused, 1))
            .map_into_right_body());
    }
    request.extensions_mut().insert(caller);
    if let Some(taken) = taken {
        request.extensions_mut().insert(taken);
    }
    let mut response = next.call(request).await?;
    let taken = response.request().extensions().get::<Taken>().cloned();
    if let Some(taken) = taken {
        tell(&taken, response.headers_mut());
    }
    Ok(response.map_into_left_body())
}

fn tell(taken: &Taken, headers: &mut HeaderMap) {
    headers.insert(LIMIT, taken.limit.tokens().into());
    headers.insert(REMAINING, taken.left.into());
    headers.insert(RESET, taken.reset().into());
}

fn refusal(refused: &Taken, cost: u32) -> HttpResponse {
    if cost > refused.limit.tokens() {
        let detail = format!("{refused}; this one counts as {cost}, so send less at once");
        return problem::answer(ErrorCode::PayloadTooLarge, &detail, None, &[]);
    }
    let mut response = problem::answer(ErrorCode::RateLimited, &refused.to_string(), None, &[]);
    response
        .headers_mut()
        .insert(RETRY_AFTER, refused.retry_after().into());
    tell(refused, response.headers_mut());
    response
}

fn unknown_key() -> HttpResponse {
    let detail = "the API key is unknown here";
    let mut response = problem::answer(ErrorCode::Unauthorized, detail, None, &[]);
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
