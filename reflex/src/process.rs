//! `POST /api/v1/reflex/process` and `/batch`: the screen for the texts of other services.

use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use futures::future::join_all;
use octollm_events::carrier::Ruleset as RulesetName;
use octollm_screen::{Placeholders, Role, Ruleset, Screening, Strategy, redact, screen};
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::cache::{Cache, Key};
use crate::capabilities::names;
use crate::contract::Violations;
use crate::limits::Endpoint;
use crate::metrics::Metrics;
use crate::problem;
use crate::reception::{Reception, offload};
use crate::request::{Body, json_body};

/// Most texts of one batch.
pub const MAX_BATCH: usize = 256;

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

impl Query {
    fn screened(&self, known: Option<Arc<Screening>>, ruleset: &Ruleset) -> Screened {
        let screening = known.unwrap_or_else(|| Arc::new(screen(&self.text, self.role, ruleset)));
        let mut placeholders = Placeholders::default();
        placeholders.reserve(&self.text);
        let redacted = redact(&self.text, &screening, self.redact, &mut placeholders);
        Screened {
            screening,
            redacted,
        }
    }
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

/// A text after the screen.
struct Screened {
    screening: Arc<Screening>,
    redacted: String,
}

/// What the screen says, with the text as it may be kept. Numbers of placeholders count within this text.
#[derive(Serialize)]
struct Verdict<'s> {
    #[serde(flatten)]
    screening: &'s Screening,
    redacted: &'s str,
}

impl<'s> From<&'s Screened> for Verdict<'s> {
    fn from(screened: &'s Screened) -> Self {
        Self {
            screening: &screened.screening,
            redacted: &screened.redacted,
        }
    }
}

#[derive(Serialize)]
struct Answer<'s> {
    #[serde(flatten)]
    verdict: Verdict<'s>,
    ruleset: RulesetName,
}

#[derive(Serialize)]
struct BatchAnswer<'s> {
    /// In the order of the texts.
    results: Vec<Verdict<'s>>,
    ruleset: RulesetName,
}

/// Screens a text; 200 whatever the decision, 422 for another body. Nothing of the text is kept.
pub async fn process(
    request: HttpRequest,
    body: Body,
    reception: Data<Reception>,
    cache: Data<Cache>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let body = match json_body(&request, body) {
        Ok(body) => body,
        Err(error) => return error.answer(),
    };
    let Ok(query) = serde_json::from_slice::<Query>(&body) else {
        return problem::invalid(&Violations::one("", shape()));
    };
    let ruleset = reception.ruleset();
    let screened = screened(vec![query], body.len(), ruleset, &cache, &metrics).await;
    HttpResponse::Ok().json(Answer {
        verdict: (&screened[0]).into(),
        ruleset: name(ruleset),
    })
}

/// Screens up to 256 texts in one request; each counts as a request of its own. 200 whatever the decisions.
pub async fn batch(
    request: HttpRequest,
    body: Body,
    admission: Data<Admission>,
    reception: Data<Reception>,
    cache: Data<Cache>,
    metrics: Data<Metrics>,
) -> HttpResponse {
    let body = match json_body(&request, body) {
        Ok(body) => body,
        Err(error) => return error.answer(),
    };
    let texts = match serde_json::from_slice::<Batch>(&body) {
        Ok(Batch { texts }) if (1..=MAX_BATCH).contains(&texts.len()) => texts,
        _ => {
            let shape = format!(
                "must be {{texts: [1 to {MAX_BATCH} texts]}}; each {}",
                shape()
            );
            return problem::invalid(&Violations::one("", shape));
        }
    };
    let further = u32::try_from(texts.len() - 1).unwrap_or(u32::MAX);
    if let Err(answer) = admission.charge(&request, Endpoint::Process, further).await {
        return answer;
    }
    let ruleset = reception.ruleset();
    let screened = screened(texts, body.len(), ruleset, &cache, &metrics).await;
    HttpResponse::Ok().json(BatchAnswer {
        results: screened.iter().map(Verdict::from).collect(),
        ruleset: name(ruleset),
    })
}

/// The texts after the screen, in their order; `size` is what they came in, bytes. What was screened before is not
/// screened again, but redacted from the text at hand.
async fn screened(
    texts: Vec<Query>,
    size: usize,
    ruleset: &'static Ruleset,
    cache: &Cache,
    metrics: &Metrics,
) -> Vec<Screened> {
    let keys: Vec<Option<Key>> = texts
        .iter()
        .map(|query| cache.key(&query.text, query.role, ruleset))
        .collect();
    let known = keys.iter().map(|key| async move {
        match key {
            Some(key) => cache.recall(key).await,
            None => None,
        }
    });
    let known = join_all(known).await;
    let unknown = texts.iter().zip(&known);
    let work = unknown
        .filter(|(_, known)| known.is_none())
        .map(|(query, _)| query.text.len())
        .sum();
    let fresh: Vec<bool> = known.iter().map(Option::is_none).collect();
    let timer = metrics.screen_seconds.start_timer();
    let screened = offload(work, move || {
        let each = texts.iter().zip(known);
        each.map(|(query, known)| query.screened(known, ruleset))
            .collect::<Vec<_>>()
    })
    .await;
    timer.observe_duration();
    metrics.screened_bytes.inc_by(size as u64);
    for ((screened, key), fresh) in screened.iter().zip(&keys).zip(fresh) {
        if let (Some(key), true) = (key, fresh) {
            cache.keep(key, &screened.screening);
        }
        let decision = screened.screening.decision.as_str();
        metrics.processed.with_label_values(&[decision]).inc();
    }
    screened
}

/// What a text to screen looks like.
fn shape() -> String {
    format!(
        "must be {{text: string, role?: {}, redact?: {}}}",
        names::<Role>().join("|"),
        names::<Strategy>().join("|")
    )
}

fn name(ruleset: &Ruleset) -> RulesetName {
    RulesetName {
        version: ruleset.version().to_owned(),
        digest: ruleset.digest().to_owned(),
    }
}
