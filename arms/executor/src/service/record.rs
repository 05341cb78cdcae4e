//! Putting results on record, or keeping the receipt of one that came too late.

use std::time::Duration;

use octollm_events::log::{AppendError, ReadError};
use octollm_events::{Bus, Event, Log, NewEvent, Position, failpoint};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::receipt::Receipts;
use super::standing::{Attempt, Standing};
use crate::step::Outcome;

/// Between two tries to put a result on record.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a result was not put on record.
#[derive(Debug, thiserror::Error)]
pub enum Unrecorded {
    /// The log contradicts itself.
    #[error(transparent)]
    Read(#[from] ReadError),
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
    /// What became of the step.
    pub outcome: &'a Outcome,
    /// The event that says so.
    pub event: NewEvent,
}

/// The log as this arm writes it.
pub struct Record {
    log: Log,
    receipts: Receipts,
    metrics: Metrics,
    abandon: CancellationToken,
}

impl Record {
    /// Writes to `log`. Cancelling `abandon` ends the wait for a log that is out of reach.
    #[must_use]
    pub fn new(bus: Bus, log: Log, metrics: Metrics, abandon: CancellationToken) -> Self {
        Self {
            log,
            receipts: Receipts::new(bus),
            metrics,
            abandon,
        }
    }

    /// Puts the result on record if its attempt still waits for one; else keeps its receipt. The result stays here while
    /// the log is out of reach: the step has run, and must not run again for that.
    ///
    /// # Errors
    /// [`Unrecorded`]: the dispatch has to come again.
    pub async fn settle(
        &self,
        result: &StepResult<'_>,
        mut expected: Position,
    ) -> Result<(), Unrecorded> {
        let (attempt, event) = (result.attempt, &result.event);
        let is_stored = loop {
            let trouble: Box<dyn std::error::Error + Send + Sync> =
                match self.log.append(attempt.task_id, event, &expected).await {
                    Ok(_) => break true,
                    Err(AppendError::TaskEnded { .. }) => break false,
                    Err(AppendError::Conflict { .. }) => {
                        self.metrics.conflicts.inc();
                        match self.log.read_on(attempt.task_id, &expected).await {
                            Ok(events) => match stands(result, &events) {
                                Some(is_stored) => break is_stored,
                                None => {
                                    expected = moved_on(&events, attempt, &expected)?;
                                    continue;
                                }
                            },
                            Err(error) => error.into(),
                        }
                    }
                    Err(error) => error.into(),
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
            self.late(result).await;
        }
        Ok(())
    }

    fn stored(&self, result: &StepResult<'_>) {
        let attempt = result.attempt;
        let outcome = match &result.outcome.failure {
            None => "executed".to_owned(),
            Some(failure) => failure.code.to_string(),
        };
        self.metrics.results.with_label_values(&[&outcome]).inc();
        let duration_ms = result.outcome.usage.duration.as_millis();
        tracing::info!(%attempt, result = outcome, duration_ms, "the result is on record");
    }

    /// The attempt has its result, or the task its end: this one is kept apart.
    async fn late(&self, result: &StepResult<'_>) {
        failpoint::reach("executor.late");
        let attempt = result.attempt;
        let kept = self
            .receipts
            .keep(attempt, result.dispatch, &result.event)
            .await;
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
fn stands(result: &StepResult<'_>, events: &[Event]) -> Option<bool> {
    let id = result.event.id(result.attempt.task_id);
    match events.iter().find(|stored| stored.id == id) {
        // Another run of this attempt may have been faster: only our own words are ours.
        Some(own) => Some(own.body == *result.event.body()),
        None => (Standing::after(events, result.attempt) == Standing::Closed).then_some(false),
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
