//! What all HTTP requests have in common: bodies, headers, and the count of them.

use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use octollm_events::carrier::ErrorCode;

use crate::contract::Violations;
use crate::limits::Caller;
use crate::metrics::Metrics;
use crate::problem;

/// Who asks over HTTP without an API key.
const PRINCIPAL: &str = "local";

/// A body as the framework read it: an error where it is too large or broke off.
pub type Body = Result<Bytes, Error>;

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BodyError {
    /// It passes the limit.
    #[error("the request's body passes the limit of this service")]
    TooLarge,
    /// It did not arrive as announced.
    #[error("the body broke off or could not be read")]
    Broken,
    /// It is not declared as JSON.
    #[error("the header content-type must be application/json")]
    MediaType,
}

impl BodyError {
    /// The answer that refuses the request.
    pub fn answer(self) -> HttpResponse {
        match self {
            Self::TooLarge => {
                problem::answer(ErrorCode::PayloadTooLarge, &self.to_string(), None, &[])
            }
            Self::Broken | Self::MediaType => {
                problem::invalid(&Violations::one("", self.to_string()))
            }
        }
    }
}

/// The bytes of a JSON body; an empty one needs no media type.
///
/// Another media type is refused: it is what a foreign web page can send to this address without being asked.
pub fn json_body(request: &HttpRequest, body: Body) -> Result<Bytes, BodyError> {
    let body = body.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => BodyError::TooLarge,
        _ => BodyError::Broken,
    })?;
    let media_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if body.is_empty() || media_type.eq_ignore_ascii_case("application/json") {
        return Ok(body);
    }
    Err(BodyError::MediaType)
}

/// Who asks: the user of the API key, else nobody in particular.
pub fn principal(request: &HttpRequest) -> Arc<str> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller
        .and_then(|caller| caller.user)
        .unwrap_or_else(|| PRINCIPAL.into())
}

/// The caller's W3C trace context.
pub fn traceparent(request: &HttpRequest) -> Option<String> {
    request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// Counts a request by the template of its route, never by its path.
pub async fn measure(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let metrics = request.app_data::<Data<Metrics>>().cloned();
    let method = request.method().clone();
    let response = next.call(request).await?;
    if let Some(metrics) = metrics {
        let route = response
            .request()
            .match_pattern()
            .unwrap_or_else(|| "other".to_owned());
        metrics
            .request_seconds
            .with_label_values(&[&route])
            .observe(began.elapsed().as_secs_f64());
        metrics
            .requests
            .with_label_values(&[&route, method.as_str(), response.status().as_str()])
            .inc();
    }
    Ok(response)
}

/// Any other path.
pub async fn unknown_route() -> HttpResponse {
    problem::answer(
        ErrorCode::NotFound,
        "there is no such route, or not for this method",
        None,
        &[],
    )
}
