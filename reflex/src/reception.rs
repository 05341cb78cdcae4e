//! The reception of submissions: one way from a checked submission to the first event of its task, whichever channel
//! it came by.

use octollm_events::carrier::{
    ErrorCode, Reason, Source, TaskReceived, TaskRejected, Verdict, VerdictDecision,
};
use octollm_events::log::ReadError;
use octollm_events::{AppendError, Log, NewEvent, Payload, Position, failpoint};
use octollm_screen::Ruleset;
use uuid::Uuid;

use crate::artifacts::{Artifacts, Kept};
use crate::contract::{Submission, Violations};
use crate::digest::DigestKey;
use crate::files::Bundle;
use crate::limits::Taken;
use crate::metrics::Metrics;
use crate::outcome::{Origin, Receipt, Refusal};
use crate::verdict::{Screened, screen_submission};

/// Larger submissions are screened off the threads that serve others.
const INLINE_SCREENING_BYTES: usize = 32 * 1024;

/// Longest pointer and message of a reason on record, characters (schema `record`).
const MAX_FIELD: usize = 2000;
const MAX_MESSAGE: usize = 500;
const MAX_REASONS: usize = 50;

/// The engine that both ways in share.
pub struct Reception {
    log: Log,
    artifacts: Artifacts,
    key: DigestKey,
    ruleset: &'static Ruleset,
    metrics: Metrics,
}

impl Reception {
    /// Of a log, a store, a key and rules.
    pub const fn new(
        log: Log,
        artifacts: Artifacts,
        key: DigestKey,
        ruleset: &'static Ruleset,
        metrics: Metrics,
    ) -> Self {
        Self {
            log,
            artifacts,
            key,
            ruleset,
            metrics,
        }
    }

    /// The rules that submissions are screened with.
    pub const fn ruleset(&self) -> &'static Ruleset {
        self.ruleset
    }

    /// Screens a submission of `size` bytes, keeps its files, and appends `task.received` or `task.rejected`.
    ///
    /// Doing it again with the same submission gives the same answer and appends nothing.
    pub async fn submit(
        &self,
        task_id: Uuid,
        submission: Submission,
        size: usize,
        origin: &Origin,
    ) -> Result<Receipt, Refusal> {
        let digest = self.key.digest(&submission);
        let ruleset = self.ruleset;
        let timer = self.metrics.screen_seconds.start_timer();
        let screened = offload(size, move || screen_submission(submission, ruleset)).await;
        timer.observe_duration();
        failpoint::reach("reflex.screened");
        self.metrics.screened_bytes.inc_by(size as u64);
        let Screened {
            submission,
            verdict,
        } = screened.map_err(Refusal::Invalid)?;
        self.count(&verdict);
        if verdict.decision == VerdictDecision::Block {
            return self
                .append_rejected(task_id, blocked(verdict, origin.source(), digest), origin)
                .await;
        }
        let files = Bundle::of(&submission.files);
        if let Some(bundle) = &files {
            let kept = self.artifacts.keep(bundle).await;
            failpoint::reach("reflex.kept");
            let kept = kept.map_err(|error| Refusal::Unavailable {
                task_id,
                reason: error.to_string(),
            })?;
            let result = if kept == Kept::Stored {
                "stored"
            } else {
                "present"
            };
            self.metrics.artifacts.with_label_values(&[result]).inc();
        }
        let received = TaskReceived {
            goal: submission.goal,
            constraints: submission.constraints,
            context: submission.context,
            acceptance_criteria: submission.acceptance_criteria,
            budget: submission.budget,
            priority: submission.priority,
            metadata: submission.metadata,
            verdict,
            source: origin.source(),
            submission_digest: digest.clone(),
            files: files.map(|bundle| bundle.reference),
            plan: submission.plan,
            retry_of: submission.retry_of,
        };
        // The submission kept its limits; placeholders can be longer than what they stand for.
        let event = NewEvent::first(task_id, &received)
            .map_err(|violation| Refusal::Invalid(violation.into()))?;
        match self.append(task_id, event, origin).await? {
            Stored::Now(seq) => Ok(Receipt {
                task_id,
                seq,
                repeated: false,
            }),
            Stored::Before(first) => recorded(task_id, first, Some(&digest)),
        }
    }

    /// Puts a refusal on record for a caller who can't be answered. `document` is the submission where it is JSON.
    pub async fn reject(
        &self,
        task_id: Uuid,
        code: ErrorCode,
        violations: &Violations,
        document: Option<&serde_json::Value>,
        origin: &Origin,
    ) -> Result<Receipt, Refusal> {
        let reasons = violations
            .pairs()
            .iter()
            .map(|(pointer, message)| reason(pointer, message));
        let rejection = TaskRejected {
            reasons: reasons.take(MAX_REASONS).collect(),
            ..self.rejection(code, &violations.to_string(), document, origin)
        };
        self.append_rejected(task_id, rejection, origin).await
    }

    /// Puts on record that a submission came too early. `document` is the submission where it is JSON.
    pub async fn limit(
        &self,
        task_id: Uuid,
        refused: &Taken,
        document: Option<&serde_json::Value>,
        origin: &Origin,
    ) -> Result<Receipt, Refusal> {
        let message = format!("{refused}; submit it again under another task_id");
        let rejection = TaskRejected {
            retry_after_ms: u64::try_from(refused.wait.as_millis()).ok(),
            ..self.rejection(ErrorCode::RateLimited, &message, document, origin)
        };
        self.append_rejected(task_id, rejection, origin).await
    }

    /// Puts on record that a submission can't be handled here, through no fault of its own. `message` says what to do.
    pub async fn give_up(
        &self,
        task_id: Uuid,
        message: &str,
        document: Option<&serde_json::Value>,
        origin: &Origin,
    ) -> Result<Receipt, Refusal> {
        let rejection = self.rejection(ErrorCode::InternalError, message, document, origin);
        self.append_rejected(task_id, rejection, origin).await
    }

    fn rejection(
        &self,
        code: ErrorCode,
        message: &str,
        document: Option<&serde_json::Value>,
        origin: &Origin,
    ) -> TaskRejected {
        TaskRejected {
            code,
            message: cut(message, MAX_MESSAGE),
            reasons: Vec::new(),
            source: origin.source(),
            retry_after_ms: None,
            submission_digest: document.map(|document| self.key.digest(document)),
            verdict: None,
        }
    }

    async fn append_rejected(
        &self,
        task_id: Uuid,
        rejection: TaskRejected,
        origin: &Origin,
    ) -> Result<Receipt, Refusal> {
        let event =
            NewEvent::first(task_id, &rejection).map_err(|violation| Refusal::Internal {
                task_id,
                reason: violation.to_string(),
            })?;
        let digest = rejection.submission_digest.clone();
        match self.append(task_id, event, origin).await? {
            Stored::Now(_) => Err(Refusal::Rejected {
                task_id,
                rejection: Box::new(rejection),
            }),
            Stored::Before(first) => recorded(task_id, first, digest.as_deref()),
        }
    }

    async fn append(
        &self,
        task_id: Uuid,
        event: NewEvent,
        origin: &Origin,
    ) -> Result<Stored, Refusal> {
        let event = event.with_traceparent(origin.traceparent.as_deref());
        let timer = self
            .metrics
            .append_seconds
            .with_label_values(&[event.kind()])
            .start_timer();
        let appended = self.log.append(task_id, &event, &Position::START).await;
        failpoint::reach("reflex.appended");
        timer.observe_duration();
        match appended {
            Ok(position) => Ok(Stored::Now(position.seq)),
            Err(AppendError::Conflict { .. }) => {
                self.first_event(task_id).await.map(Stored::Before)
            }
            Err(error @ AppendError::PayloadTooLarge { .. }) => Err(Refusal::TooLarge {
                task_id,
                message: error.to_string(),
            }),
            // A missing permission, a full log, or a broker that is not itself: the submission is not to blame.
            Err(
                error @ (AppendError::Unavailable { .. }
                | AppendError::Full { .. }
                | AppendError::Forbidden { .. }
                | AppendError::Refused { .. }),
            ) => Err(Refusal::Unavailable {
                task_id,
                reason: error.to_string(),
            }),
            Err(error @ AppendError::TaskEnded { .. }) => Err(Refusal::Internal {
                task_id,
                reason: error.to_string(),
            }),
        }
    }

    /// How the task began that is there already.
    async fn first_event(&self, task_id: Uuid) -> Result<FirstEvent, Refusal> {
        let internal = |reason: String| Refusal::Internal { task_id, reason };
        let events =
            self.log
                .read_on(task_id, &Position::START)
                .await
                .map_err(|error| match error {
                    ReadError::Unavailable { .. } => Refusal::Unavailable {
                        task_id,
                        reason: error.to_string(),
                    },
                    broken => internal(broken.to_string()),
                })?;
        let first = events.first().ok_or_else(|| {
            internal("the log refused the task's first event and has none".to_owned())
        })?;
        match first.kind.as_str() {
            TaskReceived::KIND => {
                let received: TaskReceived = first
                    .decode()
                    .map_err(|error| internal(error.to_string()))?;
                Ok(FirstEvent::Received {
                    seq: first.seq,
                    digest: received.submission_digest,
                })
            }
            TaskRejected::KIND => {
                let rejected = first
                    .decode()
                    .map_err(|error| internal(error.to_string()))?;
                Ok(FirstEvent::Rejected(Box::new(rejected)))
            }
            other => Err(internal(format!("the task begins with {other}"))),
        }
    }

    fn count(&self, verdict: &Verdict) {
        for found in &verdict.findings {
            self.metrics
                .findings
                .with_label_values(&[found.family.as_str(), found.severity.as_str()])
                .inc();
        }
        for redaction in &verdict.redactions {
            self.metrics
                .redactions
                .with_label_values(&[redaction.r#type.as_str()])
                .inc();
        }
    }
}

/// Does work on `size` bytes: at once, or on a thread for blocking work.
pub async fn offload<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if size <= INLINE_SCREENING_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

enum Stored {
    Now(u64),
    Before(FirstEvent),
}

enum FirstEvent {
    Received { seq: u64, digest: String },
    Rejected(Box<TaskRejected>),
}

/// The answer where the task was on record already. A rejection without a digest has an id that no client chose, so
/// it can only be the same message again.
fn recorded(task_id: Uuid, first: FirstEvent, digest: Option<&str>) -> Result<Receipt, Refusal> {
    match first {
        FirstEvent::Received { seq, digest: known } if Some(known.as_str()) == digest => {
            Ok(Receipt {
                task_id,
                seq,
                repeated: true,
            })
        }
        FirstEvent::Rejected(rejection) if rejection.submission_digest.as_deref() == digest => {
            Err(Refusal::Rejected { task_id, rejection })
        }
        _ => Err(Refusal::Conflict { task_id }),
    }
}

fn blocked(verdict: Verdict, source: Source, digest: String) -> TaskRejected {
    let mut fields: Vec<&str> = verdict
        .findings
        .iter()
        .map(|found| found.field.as_str())
        .collect();
    fields.dedup();
    let message = format!(
        "the screen found a prompt injection in {}; reword it and submit it again",
        fields.join(", ")
    );
    let reasons = verdict.findings.iter().map(|found| {
        let message = format!(
            "{} ({}, {})",
            found.family.replace('_', " "),
            found.severity.as_str(),
            found.rule
        );
        reason(&found.field, &message)
    });
    TaskRejected {
        code: ErrorCode::InjectionBlocked,
        message: cut(&message, MAX_MESSAGE),
        reasons: reasons.take(MAX_REASONS).collect(),
        source,
        retry_after_ms: None,
        submission_digest: Some(digest),
        verdict: Some(verdict),
    }
}

fn reason(field: &str, message: &str) -> Reason {
    Reason {
        field: Some(cut(field, MAX_FIELD)),
        message: cut(message, MAX_MESSAGE),
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
