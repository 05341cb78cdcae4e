//! Putting results on record with their receipts, or keeping one that came too late.

use std::sync::Arc;
use std::time::Duration;

use octollm_events::log::{AppendError, ReadError};
use octollm_events::{Bus, Event, Log, NewEvent, Position, failpoint};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::late::LateResults;
use super::metrics::Metrics;
use super::newest::{Newest, NewestReceipts, last_of};
use super::notary::{Case, Notary, Signed, Unsigned};
use super::standing::{Attempt, Standing};

/// Between two tries to put a result on record.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a result was not put on record.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// The log contradicts itself.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has no receipt.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// This executor is stopping, and the log is out of reach.
    #[error("this executor is stopping")]
    Stopping,
}

/// What is to be put on record.
pub struct StepResult<'a> {
    /// The dispatch that it answers.
    pub dispatch: &'a Event,
    /// Whose result it is.
    pub attempt: &'a Attempt,
    /// What its receipt says.
    pub case: Case<'a>,
    /// The event that says what became of the step, without its receipt.
    pub event: NewEvent,
}

/// The log as this arm writes it.
pub struct Record {
    log: Log,
    notary: Arc<Notary>,
    receipts: NewestReceipts,
    late: LateResults,
    metrics: Metrics,
    abandon: CancellationToken,
}

impl Record {
    /// Writes to `log` what `notary` has signed. Cancelling `abandon` ends the wait for a log that is out of reach.
    #[must_use]
    pub fn new(
        bus: Bus,
        log: Log,
        notary: Arc<Notary>,
        metrics: Metrics,
        abandon: CancellationToken,
    ) -> Self {
        Self {
            log,
            notary,
            receipts: NewestReceipts::default(),
            late: LateResults::new(bus),
            metrics,
            abandon,
        }
    }

    /// Takes note of a task's whole log, so that it need not be read again for the receipt that the next one names.
    pub fn learn(&self, task_id: Uuid, events: &[Event]) {
        self.receipts.learn(task_id, events);
    }

    /// Puts the result on record if its attempt still waits for one; else keeps it apart. The result stays here while
    /// the log is out of reach: the step has run, and must not run again for that. It is signed for the place that it
    /// gets: whenever the log has moved on, anew.
    ///
    /// # Errors
    /// [`Unrecorded`]: the dispatch has to come again.
    pub async fn settle(
        &self,
        result: &StepResult<'_>,
        mut expected: Position,
    ) -> Result<(), Unrecorded> {
        let attempt = result.attempt;
        let task_id = attempt.task_id;
        let mut newest = self.receipts.before(result.dispatch, &expected);
        let mut signed = self.sign(result, newest.as_ref())?;
        let is_stored = loop {
            let trouble: Box<dyn std::error::Error + Send + Sync> = if newest.is_none() {
                match self.log.read(task_id, None).await {
                    Ok(events) => {
                        newest = Some(self.receipts.learn(task_id, &events));
                        signed = self.sign(result, newest.as_ref())?;
                        continue;
                    }
                    Err(error) => error.into(),
                }
            } else {
                match self.log.append(task_id, &signed.event, &expected).await {
                    Ok(position) => {
                        let Signed { digest, .. } = &signed;
                        self.receipts
                            .stored(task_id, position.version, digest.clone());
                        break true;
                    }
                    Err(AppendError::TaskEnded { .. }) => break false,
                    Err(AppendError::Conflict { .. }) => {
                        self.metrics.conflicts.inc();
                        match self.log.read_on(task_id, &expected).await {
                            Ok(events) => match stands(&signed.event, attempt, &events) {
                                Some(is_stored) => break is_stored,
                                None => {
                                    expected = moved_on(&events, attempt, &expected)?;
                                    let before = newest.take().and_then(|newest| newest.receipt);
                                    newest = Some(Newest {
                                        until: expected.version,
                                        receipt: last_of(&events).or(before),
                                    });
                                    signed = self.sign(result, newest.as_ref())?;
                                    continue;
                                }
                            },
                            Err(error) => error.into(),
                        }
                    }
                    Err(error) => error.into(),
                }
            };
            self.metrics
                .handler_failures
                .with_label_values(&["append"])
                .inc();
            tracing::error!(%attempt, error = %trouble, "the result could not be put on record; trying again");
            tokio::select! {
                () = self.abandon.cancelled() => return Err(Unrecorded::Stopping),
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        if is_stored {
            self.stored(result);
        } else {
            self.late(result, &signed.event).await;
        }
        Ok(())
    }

    fn sign(&self, result: &StepResult<'_>, newest: Option<&Newest>) -> Result<Signed, Unsigned> {
        let previous = newest.and_then(|newest| newest.receipt.as_deref());
        self.notary.sign(&result.case, &result.event, previous)
    }

    fn stored(&self, result: &StepResult<'_>) {
        let attempt = result.attempt;
        let outcome = match &result.case.outcome.failure {
            None => "executed".to_owned(),
            Some(failure) => failure.code.to_string(),
        };
        self.metrics.results.with_label_values(&[&outcome]).inc();
        let duration_ms = result.case.outcome.usage.duration.as_millis();
        tracing::info!(%attempt, result = outcome, duration_ms, "the result is on record");
    }

    /// The attempt has its result, or the task its end: this one is kept apart.
    async fn late(&self, result: &StepResult<'_>, event: &NewEvent) {
        failpoint::reach("executor.late");
        let attempt = result.attempt;
        let kept = self.late.keep(attempt, result.dispatch, event).await;
        failpoint::reach("executor.receipt_kept");
        let outcome = match kept {
            Ok(receipt) => {
                tracing::warn!(%attempt, receipt, "the result came after the attempt was settled; its receipt is kept");
                "kept"
            }
            Err(error) => {
                tracing::error!(%attempt, %error, "the result came after the attempt was settled, and its receipt is lost");
                "lost"
            }
        };
        self.metrics
            .late_receipts
            .with_label_values(&[outcome])
            .inc();
        self.metrics.late_results.inc();
    }
}

/// Whether the result is among these events; none where its attempt still waits for one.
fn stands(result: &NewEvent, attempt: &Attempt, events: &[Event]) -> Option<bool> {
    let id = result.id(attempt.task_id);
    match events.iter().find(|stored| stored.id == id) {
        // Another run of this attempt may have been faster: only our own words are ours.
        Some(own) => Some(own.body == *result.body()),
        None => (Standing::after(events, attempt) == Standing::Closed).then_some(false),
    }
}

fn moved_on(
    events: &[Event],
    attempt: &Attempt,
    expected: &Position,
) -> Result<Position, ReadError> {
    let last = events.last().map(Event::position);
    last.ok_or_else(|| ReadError::ChainBroken {
        task_id: attempt.task_id,
        seq: expected.seq,
        reason: "the log has moved on, but nothing follows".to_owned(),
    })
}
