//! Putting results on record with their receipts, or keeping one that came too late.

use std::sync::Arc;
use std::time::Duration;

use octollm_events::carrier::{ErrorCode, StepDispatched, WorkspaceChange};
use octollm_events::log::{AppendError, ReadError};
use octollm_events::{Event, Log, NewEvent, Position, SchemaViolation, failpoint};
use time::OffsetDateTime;
use uuid::Uuid;

use super::engine::Engine;
use super::late::LateResults;
use super::newest::{Newest, NewestReceipts, last_of};
use super::notary::{Case, Signed, Unsigned};
use super::snapshots::{Progress, Snapshot, SnapshotError};
use super::standing::{Attempt, Standing};
use crate::report;
use crate::step::{Failure, Outcome};
use crate::workspace::{Caps, Conflict, Tree};

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
    /// The result can't be told: a defect of this executor.
    #[error(transparent)]
    Payload(#[from] SchemaViolation),
    /// This executor is stopping, and the log is out of reach.
    #[error("this executor is stopping")]
    Stopping,
}

/// What is to be put on record.
pub struct StepResult<'a> {
    /// The dispatch that it answers.
    pub dispatch: &'a Event,
    /// Its payload.
    pub dispatched: &'a StepDispatched,
    /// Whose result it is.
    pub attempt: &'a Attempt,
    /// Digest of the step's action.
    pub action: String,
    /// When the step ended.
    pub ended_at: OffsetDateTime,
    /// What became of the step.
    pub outcome: Outcome,
    /// The workspace that it started from, if it came that far.
    pub before: Option<Snapshot>,
}

/// A result as it is told at one point of the log, without its receipt.
struct Told {
    event: NewEvent,
    outcome: Outcome,
}

/// The log as this arm writes it.
pub struct Record {
    log: Log,
    engine: Arc<Engine>,
    receipts: NewestReceipts,
    late: LateResults,
}

impl Record {
    /// Writes to `log` what the engine's notary has signed. Abandoning the engine ends the wait for a log that is out of
    /// reach.
    #[must_use]
    pub fn new(log: Log, engine: Arc<Engine>) -> Self {
        let late = LateResults::new(Arc::clone(engine.snapshots.artifacts()));
        Self {
            log,
            engine,
            receipts: NewestReceipts::default(),
            late,
        }
    }

    /// Takes note of a task's whole log, so that it need not be read again for the receipt that the next one names.
    pub fn learn(&self, task_id: Uuid, events: &[Event]) {
        self.receipts.learn(task_id, events);
    }

    /// Puts the result on record if its attempt still waits for one; else keeps it apart. `since` are the events that are
    /// known to follow the dispatch. The result stays here while the log or the store is out of reach: the step has run,
    /// and must not run again for that. It is signed for the place that it gets: whenever the log has moved on, anew.
    ///
    /// The workspace of a task is what the log says, so the result is told against the newest in the log: when another
    /// step was faster, its changes and this one's are merged, as often as the log moves on.
    ///
    /// # Errors
    /// [`Unrecorded`]: the dispatch has to come again.
    pub async fn settle(&self, result: &StepResult<'_>, since: &[Event]) -> Result<(), Unrecorded> {
        let attempt = result.attempt;
        let task_id = attempt.task_id;
        let mut expected = since.last().unwrap_or(result.dispatch).position();
        let mut progress = Progress::since(result.dispatched, since);
        let mut told = self.told(result, &progress).await?;
        let mut newest = self.receipts.before(result.dispatch, &expected);
        let mut signed = self.sign(result, &told, newest.as_ref())?;
        let is_stored = loop {
            let trouble: Box<dyn std::error::Error + Send + Sync> = if newest.is_none() {
                match self.log.read(task_id, None).await {
                    Ok(events) => {
                        newest = Some(self.receipts.learn(task_id, &events));
                        signed = self.sign(result, &told, newest.as_ref())?;
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
                        self.engine.metrics.conflicts.inc();
                        match self.log.read_on(task_id, &expected).await {
                            Ok(events) => match stands(&signed.event, attempt, &events) {
                                Some(is_stored) => break is_stored,
                                None => {
                                    expected = moved_on(&events, attempt, &expected)?;
                                    let workspace = progress.digest.clone();
                                    progress.follow(&events);
                                    if progress.digest != workspace {
                                        told = self.told(result, &progress).await?;
                                    }
                                    let before = newest.take().and_then(|newest| newest.receipt);
                                    newest = Some(Newest {
                                        until: expected.version,
                                        receipt: last_of(&events).or(before),
                                    });
                                    signed = self.sign(result, &told, newest.as_ref())?;
                                    continue;
                                }
                            },
                            Err(error) => error.into(),
                        }
                    }
                    Err(error) => error.into(),
                }
            };
            self.pause(attempt, "append", &*trouble).await?;
        };
        if is_stored {
            self.stored(result, told.outcome.failure.as_ref());
        } else {
            self.late(result, &signed.event).await;
        }
        Ok(())
    }

    fn sign(
        &self,
        result: &StepResult<'_>,
        told: &Told,
        newest: Option<&Newest>,
    ) -> Result<Signed, Unsigned> {
        let previous = newest.and_then(|newest| newest.receipt.as_deref());
        let case = Case {
            task_id: result.attempt.task_id,
            dispatched: result.dispatched,
            action: result.action.clone(),
            dispatch: Some(result.dispatch.hash),
            outcome: &told.outcome,
            ended_at: result.ended_at,
        };
        self.engine.notary.sign(&case, &told.event, previous)
    }

    /// The result as an event, after what other steps have made of the workspace meanwhile.
    async fn told(&self, result: &StepResult<'_>, progress: &Progress) -> Result<Told, Unrecorded> {
        let changed = loop {
            match self.change(result, progress).await {
                Ok(changed) => break changed,
                Err(unavailable) => self.pause(result.attempt, "snapshot", &unavailable).await?,
            }
        };
        let (cause, dispatched) = (result.dispatch.id, result.dispatched);
        let mut outcome = result.outcome.clone();
        let change = match changed {
            Ok(change) => change,
            Err(failure) => {
                outcome.failure = Some(failure);
                None
            }
        };
        let event = report::event(cause, dispatched, &outcome, change.as_ref())?
            .with_traceparent(result.dispatch.traceparent.as_deref());
        Ok(Told { event, outcome })
    }

    /// Merges what the step has changed into the newest workspace and stores the snapshot; none: nothing is new. The inner
    /// error is why the step has failed after all, the outer that the store does not answer.
    async fn change(
        &self,
        result: &StepResult<'_>,
        progress: &Progress,
    ) -> Result<Result<Option<WorkspaceChange>, Failure>, SnapshotError> {
        let Some(before) = &result.before else {
            return Ok(Ok(None));
        };
        let Some(mine) = result.outcome.changed(&before.tree) else {
            return Ok(Ok(None));
        };
        let (task_id, snapshots) = (result.attempt.task_id, &self.engine.snapshots);
        let current = if progress.digest == before.digest {
            Arc::clone(&before.tree)
        } else {
            match snapshots.get(task_id, progress.digest.as_deref()).await {
                Ok(tree) => tree.unwrap_or_default(),
                Err(unavailable @ SnapshotError::Unavailable(_)) => return Err(unavailable),
                Err(corrupt) => return Ok(Err(corrupt.into())),
            }
        };
        let merged = match Tree::merge(&before.tree, &current, mine) {
            Ok(merged) => merged,
            Err(conflict) => return Ok(Err(overtaken(&conflict, &progress.steps))),
        };
        if merged == *current {
            return Ok(Ok(None));
        }
        if let Err(excess) = merged.check(&Caps::default()) {
            let message =
                format!("together with what other steps wrote at the same time: {excess}");
            return Ok(Err(Failure::new(ErrorCode::DiskLimit, message)));
        }
        let before = match &progress.digest {
            Some(digest) => digest.clone(),
            None => current.digest(),
        };
        let after = snapshots.put(task_id, &Arc::new(merged)).await?;
        failpoint::reach("executor.snapshot_kept");
        Ok(Ok(Some(WorkspaceChange { before, after })))
    }

    /// Waits before another try.
    async fn pause(
        &self,
        attempt: &Attempt,
        what: &str,
        trouble: &(dyn std::error::Error + Send + Sync),
    ) -> Result<(), Unrecorded> {
        let failures = &self.engine.metrics.handler_failures;
        failures.with_label_values(&[what]).inc();
        tracing::error!(%attempt, error = %trouble, "the result could not be put on record; trying again");
        tokio::select! {
            () = self.engine.abandon.cancelled() => Err(Unrecorded::Stopping),
            () = tokio::time::sleep(PAUSE) => Ok(()),
        }
    }

    fn stored(&self, result: &StepResult<'_>, failure: Option<&Failure>) {
        let attempt = result.attempt;
        let outcome = match failure {
            None => "executed".to_owned(),
            Some(failure) => failure.code.to_string(),
        };
        self.engine
            .metrics
            .results
            .with_label_values(&[&outcome])
            .inc();
        let duration_ms = result.outcome.usage.duration.as_millis();
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
        self.engine
            .metrics
            .late_receipts
            .with_label_values(&[outcome])
            .inc();
        self.engine.metrics.late_results.inc();
    }
}

/// Whether the result, told so, is among these events; none where its attempt still waits for one.
fn stands(told: &NewEvent, attempt: &Attempt, events: &[Event]) -> Option<bool> {
    let id = told.id(attempt.task_id);
    match events.iter().find(|stored| stored.id == id) {
        // Another run of this attempt may have been faster: only our own words are ours.
        Some(own) => Some(own.body == *told.body()),
        None => (Standing::after(events, attempt) == Standing::Closed).then_some(false),
    }
}

/// Two steps that ran at the same time have changed the same path.
fn overtaken(conflict: &Conflict, steps: &[String]) -> Failure {
    let steps = steps.join(", ");
    let path = &conflict.path;
    let message = format!(
        "{path} was changed by this step and at the same time by another (of those on record meanwhile: {steps}); let one \
         depend on the other, or have them write different files"
    );
    Failure::new(ErrorCode::StepFailed, message)
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let code = match error {
            SnapshotError::Invalid(_) => ErrorCode::InvalidRequest,
            SnapshotError::Corrupt(_) | SnapshotError::Unavailable(_) => ErrorCode::InternalError,
        };
        Self::new(code, format!("the workspace: {error}"))
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
