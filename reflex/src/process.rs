//! `POST /api/v1/reflex/process`: the screen for the texts of other services.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use octollm_events::carrier::Ruleset as RulesetName;
use octollm_screen::{Placeholders, Role, Screening, Strategy, redact, screen};
use serde::{Deserialize, Serialize};

use crate::contract::Violations;
use crate::metrics::Metrics;
use crate::problem;
use crate::reception::{Reception, offload};
use crate::request::{Body, json_body};

const SHAPE: &str = "must be {text: string, role?: goal|constraint|criterion|plan|note|context|metadata|output, \
                     redact?: token|mask}";

/// A text to screen. Without a role it is judged as strictly as a goal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    text: String,
    #[serde(default = "goal")]
    role: Role,
    #[serde(default)]
    redact: Strategy,
}

const fn goal() -> Role {
    Role::Goal
}

/// What the screen says, with the text as it may be kept. Numbers of placeholders count within this text.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    screening: Screening,
    redacted: String,
    ruleset: RulesetName,
}

/// Screens a text; 200 whatever the decision, 422 for another body. Nothing is kept.
pub async fn process(
    request: HttpRequest,
    body: Body,
    reception: Data<Reception>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let body = match json_body(&request, body) {
        Ok(body) => body,
        Err(error) => return error.answer(),
    };
    let Ok(query) = serde_json::from_slice::<Query>(&body) else {
        return problem::invalid(&Violations::one("", SHAPE));
    };
    let ruleset = reception.ruleset();
    let timer = metrics.screen_seconds.start_timer();
    let (screening, redacted) = offload(body.len(), move || {
        let screening = screen(&query.text, query.role, ruleset);
        let redacted = redact(
            &query.text,
            &screening,
            query.redact,
            &mut reserved(&query.text),
        );
        (screening, redacted)
    })
    .await;
    timer.observe_duration();
    metrics.screened_bytes.inc_by(body.len() as u64);
    metrics
        .processed
        .with_label_values(&[screening.decision.as_str()])
        .inc();
    HttpResponse::Ok().json(Answer {
        screening,
        redacted,
        ruleset: RulesetName {
            version: ruleset.version().to_owned(),
            digest: ruleset.digest().to_owned(),
        },
    })
}

fn reserved(text: &str) -> Placeholders {
    let mut placeholders = Placeholders::default();
    placeholders.reserve(text);
    placeholders
}
