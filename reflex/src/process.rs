//! `POST /api/v1/reflex/process` and `/batch`: the screen for the texts of other services.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use octollm_events::carrier::Ruleset as RulesetName;
use octollm_screen::{Placeholders, Role, Ruleset, Screening, Strategy, redact, screen};
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::contract::Violations;
use crate::limits::Endpoint;
use crate::metrics::Metrics;
use crate::problem;
use crate::reception::{Reception, offload};
use crate::request::{Body, json_body};

/// Most texts of one batch.
pub const MAX_BATCH: usize = 256;

const SHAPE: &str = "must be {text: string, role?: goal|constraint|criterion|plan|note|context|metadata|output, \
                     redact?: token|mask}";
const BATCH_SHAPE: &str =
    "must be {texts: [1 to 256 of {text, role?, redact?}]}, each as /process takes it";

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

/// Texts to screen, each for itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    texts: Vec<Query>,
}

const fn goal() -> Role {
    Role::Goal
}

/// What the screen says, with the text as it may be kept. Numbers of placeholders count within this text.
#[derive(Serialize)]
struct Verdict {
    #[serde(flatten)]
    screening: Screening,
    redacted: String,
}

impl Verdict {
    fn of(query: &Query, ruleset: &Ruleset) -> Self {
        let screening = screen(&query.text, query.role, ruleset);
        let mut placeholders = Placeholders::default();
        placeholders.reserve(&query.text);
        let redacted = redact(&query.text, &screening, query.redact, &mut placeholders);
        Self {
            screening,
            redacted,
        }
    }
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    verdict: Verdict,
    ruleset: RulesetName,
}

#[derive(Serialize)]
struct BatchAnswer {
    /// In the order of the texts.
    results: Vec<Verdict>,
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
    let mut verdicts = screened(vec![query], body.len(), ruleset, &metrics).await;
    let Some(verdict) = verdicts.pop() else {
        unreachable!("one text has one verdict");
    };
    HttpResponse::Ok().json(Answer {
        verdict,
        ruleset: name(ruleset),
    })
}

/// Screens up to 256 texts in one request; each counts as a request of its own. 200 whatever the decisions.
pub async fn batch(
    request: HttpRequest,
    body: Body,
    admission: Data<Admission>,
    reception: Data<Reception>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let body = match json_body(&request, body) {
        Ok(body) => body,
        Err(error) => return error.answer(),
    };
    let texts = match serde_json::from_slice::<Batch>(&body) {
        Ok(Batch { texts }) if (1..=MAX_BATCH).contains(&texts.len()) => texts,
        _ => return problem::invalid(&Violations::one("", BATCH_SHAPE)),
    };
    let further = u32::try_from(texts.len() - 1).unwrap_or(u32::MAX);
    if let Err(answer) = admission.charge(&request, Endpoint::Process, further).await {
        return answer;
    }
    let ruleset = reception.ruleset();
    HttpResponse::Ok().json(BatchAnswer {
        results: screened(texts, body.len(), ruleset, &metrics).await,
        ruleset: name(ruleset),
    })
}

/// A verdict on each text; `size` is what they came in, bytes.
async fn screened(
    texts: Vec<Query>,
    size: usize,
    ruleset: &'static Ruleset,
    metrics: &Metrics,
) -> Vec<Verdict> {
    let timer = metrics.screen_seconds.start_timer();
    let verdicts: Vec<Verdict> = offload(size, move || {
        let verdicts = texts.iter().map(|query| Verdict::of(query, ruleset));
        verdicts.collect()
    })
    .await;
    timer.observe_duration();
    metrics.screened_bytes.inc_by(size as u64);
    for verdict in &verdicts {
        metrics
            .processed
            .with_label_values(&[verdict.screening.decision.as_str()])
            .inc();
    }
    verdicts
}

fn name(ruleset: &Ruleset) -> RulesetName {
    RulesetName {
        version: ruleset.version().to_owned(),
        digest: ruleset.digest().to_owned(),
    }
}
