//! One dispatch: is there still something to do, may it be done, do it, put the result on record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use octollm_events::carrier::{Effect, ErrorCode, StepDispatched};
use octollm_events::{Event, failpoint};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::Claimed;
use super::recall::recall;
use super::record::StepResult;
use super::snapshots::{Snapshot, SnapshotError};
use super::standing::{Attempt, Standing};
use super::worker::{BEAT, Trouble, Worker};
use crate::capability::{self, Use};
use crate::step::{Assignment, Failure, Outcome, Recorded};
use crate::workspace::Tree;

/// How old a dispatch may be to be run without a look into the log.
const FRESH: Duration = Duration::from_secs(1);

impl Worker {
    /// From a dispatch to its result on record.
    pub(super) async fn attempt(
        &self,
        dispatch: &Event,
        dispatched: &StepDispatched,
        attempt: &Attempt,
        is_again: bool,
    ) -> Result<(), Trouble> {
        let entered = Entered::new(self, attempt).ok_or(Trouble::Running)?;
        let is_overdue = is_overdue(dispatched);
        // An ack that a killed broker forgot comes back as a first delivery, over a new connection.
        let is_after_crash = self.bus.lasted() < FRESH || self.dispatches.has_seen(attempt);
        let must_look = is_again || is_overdue || is_after_crash || is_stale(dispatch);
        let history = self.history(dispatch, must_look).await?;
        let since = history.since(dispatch);
        match Standing::after(since, attempt) {
            Standing::Closed => return Ok(()),
            Standing::CancelRequested => entered.cancel.cancel(),
            Standing::Open => {}
        }
        let since = since.to_vec();
        let mut before = None;
        let refusal = self.refusal(dispatch, dispatched, attempt, is_overdue);
        let outcome = if let Some(failure) = refusal {
            Outcome::refused(failure)
        } else if entered.cancel.is_cancelled() {
            let message = "the task was cancelled before the step started";
            Outcome::refused(Failure::new(ErrorCode::Cancelled, message))
        } else {
            let step = StepRun {
                dispatch,
                dispatched,
                attempt,
                cancel: &entered.cancel,
            };
            match self.run(step, history, &mut before).await? {
                Some(outcome) => outcome,
                None => return Ok(()),
            }
        };
        failpoint::reach("executor.ended");
        let is_cancelled =
            outcome.failure.as_ref().map(|failure| failure.code) == Some(ErrorCode::Cancelled);
        if self.engine.abandon.is_cancelled() && is_cancelled {
            return Err(Trouble::Stopping);
        }
        self.engine.metrics.cancels.inc_by(u64::from(is_cancelled));
        let asked = Use::of(
            capability::DISPATCH,
            dispatch.task_id,
            dispatched,
            &dispatch.body,
        );
        let result = StepResult {
            dispatch,
            dispatched,
            attempt,
            action: asked.action,
            ended_at: OffsetDateTime::now_utc(),
            outcome,
            before,
        };
        self.record.settle(&result, &since).await?;
        failpoint::reach("executor.settled");
        Ok(())
    }

    /// What the log says of the task: all of it where this process does not know the task yet, what follows the dispatch
    /// where it `must_look`, else nothing.
    async fn history(&self, dispatch: &Event, must_look: bool) -> Result<History, Trouble> {
        let task_id = dispatch.task_id;
        if !self.dispatches.knows(task_id) {
            let events = self.log.read(task_id, None).await?;
            self.dispatches.learn(task_id, &events);
            self.record.learn(task_id, &events);
            return Ok(History::Whole(events));
        }
        Ok(History::Since(if must_look {
            self.log.read(task_id, Some(&dispatch.position())).await?
        } else {
            Vec::new()
        }))
    }

    /// Why this dispatch must not be run, whatever is in it.
    fn refusal(
        &self,
        dispatch: &Event,
        dispatched: &StepDispatched,
        attempt: &Attempt,
        is_overdue: bool,
    ) -> Option<Failure> {
        let asked = Use::of(
            capability::DISPATCH,
            dispatch.task_id,
            dispatched,
            &dispatch.body,
        );
        let verified =
            self.engine
                .verifier
                .verify(&dispatched.capability, &asked, SystemTime::now());
        match verified {
            // A grant ends with the deadline: that it is over is then all there is to say.
            Err(violation) if !(is_overdue && violation.is_expiry()) => {
                tracing::error!(%attempt, %violation, "the dispatch is refused");
                return Some(violation.into());
            }
            _ => {}
        }
        let first = self.dispatches.first(attempt, dispatch.seq);
        if first != dispatch.seq {
            return Some(replayed(first));
        }
        is_overdue.then(|| {
            let deadline = &dispatched.deadline;
            let message =
                format!("the step's deadline {deadline} had passed before it could start");
            Failure::new(ErrorCode::Timeout, message)
        })
    }

    /// Runs the step on the workspace that its dispatch names, which is `before` then; None if it is settled on record. A
    /// failure of the step is an outcome; an error means that it could not be tried.
    async fn run(
        &self,
        step: StepRun<'_>,
        history: History,
        before: &mut Option<Snapshot>,
    ) -> Result<Option<Outcome>, Trouble> {
        let StepRun {
            dispatch,
            dispatched,
            attempt,
            cancel,
        } = step;
        let assignment = match Assignment::parse(&dispatched.step) {
            Ok(assignment) => assignment,
            Err(failure) => return Ok(Some(Outcome::refused(failure))),
        };
        let digest = dispatched.workspace.as_deref();
        let workspace = match self.workspace(attempt.task_id, digest, history).await {
            Ok(workspace) => workspace,
            Err(Trouble::Snapshot(error)) if !matches!(error, SnapshotError::Unavailable(_)) => {
                return Ok(Some(Outcome::refused(error.into())));
            }
            Err(trouble) => return Err(trouble),
        };
        *before = Some(Snapshot {
            digest: dispatched.workspace.clone(),
            tree: Arc::clone(&workspace),
        });
        let recorded = self.recorded(attempt.task_id, &assignment).await?;
        if dispatched.step.effect == Effect::SideEffecting && assignment.has_effects() {
            match self.claim(dispatch, attempt, cancel).await? {
                Claim::Ours => {}
                Claim::Settled => return Ok(None),
                Claim::Spent(failure) => return Ok(Some(Outcome::refused(failure))),
            }
        }
        failpoint::reach("executor.started");
        tracing::info!(%attempt, effect = %dispatched.step.effect, "the step starts");
        tokio::select! {
            outcome = self.engine.execute(assignment, workspace, recorded, cancel) => Ok(Some(outcome)),
            never = self.look_out(dispatch, attempt, cancel) => match never {},
        }
    }

    /// Claims a side-effecting attempt before it is started.
    async fn claim(
        &self,
        dispatch: &Event,
        attempt: &Attempt,
        cancel: &CancellationToken,
    ) -> Result<Claim, Trouble> {
        let claimed = self.engine.claims.take(attempt, dispatch.seq).await?;
        failpoint::reach("executor.claimed");
        // A broker that was killed forgets its latest acks, and then calls a delivery the first that is none. With the
        // claim in hand nobody else can settle the attempt any more, so what the log says now is what counts.
        let since = self
            .log
            .read(attempt.task_id, Some(&dispatch.position()))
            .await;
        match (
            since.map(|events| Standing::after(&events, attempt)),
            claimed,
        ) {
            (Ok(Standing::Closed), _) => Ok(Claim::Settled),
            (Ok(standing), Claimed::Now(_)) => {
                if standing == Standing::CancelRequested {
                    cancel.cancel();
                }
                Ok(Claim::Ours)
            }
            (Err(error), Claimed::Now(claim)) => {
                // Nothing was started: the claim would only make the next delivery an unknown outcome.
                self.engine.claims.give_back(claim);
                Err(error.into())
            }
            (Err(error), Claimed::Before { .. }) => Err(error.into()),
            (Ok(_), Claimed::Before { dispatch: first }) if first != dispatch.seq => {
                Ok(Claim::Spent(replayed(first)))
            }
            (Ok(_), Claimed::Before { .. }) => {
                let message = "an executor ended while this side-effecting step ran, so nobody can say whether its \
                               effect took place; check it by hand before you run it again";
                let failure = Failure::new(ErrorCode::UnknownOutcome, message);
                Ok(Claim::Spent(failure))
            }
        }
    }

    /// Cancels the step when the executor stops, or when the log says so though nobody told us.
    async fn look_out(
        &self,
        dispatch: &Event,
        attempt: &Attempt,
        cancel: &CancellationToken,
    ) -> Infallible {
        loop {
            tokio::select! {
                () = self.engine.abandon.cancelled() => {
                    cancel.cancel();
                    std::future::pending::<Infallible>().await;
                }
                () = tokio::time::sleep(BEAT) => {}
            }
            match self
                .log
                .read(attempt.task_id, Some(&dispatch.position()))
                .await
            {
                Ok(events) if Standing::after(&events, attempt) != Standing::Open => {
                    cancel.cancel()
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%attempt, %error, "the log can't be read for a cancel")
                }
            }
        }
    }

    /// The task's workspace as the dispatch names it; without a name, the files that the task came with.
    async fn workspace(
        &self,
        task_id: Uuid,
        digest: Option<&str>,
        history: History,
    ) -> Result<Arc<Tree>, Trouble> {
        if let Some(workspace) = self.engine.snapshots.get(task_id, digest).await? {
            return Ok(workspace);
        }
        let events = match history {
            History::Whole(events) => events,
            History::Since(_) => self.log.read(task_id, None).await?,
        };
        Ok(self.engine.snapshots.initial(task_id, &events).await?)
    }

    async fn recorded(&self, task_id: Uuid, assignment: &Assignment) -> Result<Recorded, Trouble> {
        let steps: Vec<String> = assignment.recalled_steps().map(str::to_owned).collect();
        if steps.is_empty() {
            return Ok(Recorded::new());
        }
        Ok(recall(&self.log.read(task_id, None).await?, &steps))
    }
}

/// A step that is to run.
struct StepRun<'a> {
    dispatch: &'a Event,
    dispatched: &'a StepDispatched,
    attempt: &'a Attempt,
    cancel: &'a CancellationToken,
}

/// What claiming an attempt came to.
enum Claim {
    Ours,
    /// The attempt has its result.
    Settled,
    /// It was claimed before: the step's failure.
    Spent(Failure),
}

/// What was read of a task's log.
enum History {
    Whole(Vec<Event>),
    /// What follows the dispatch, as far as it was looked at.
    Since(Vec<Event>),
}

impl History {
    /// What follows the dispatch.
    fn since(&self, dispatch: &Event) -> &[Event] {
        match self {
            Self::Whole(events) => {
                &events[events.partition_point(|event| event.seq <= dispatch.seq)..]
            }
            Self::Since(events) => events,
        }
    }
}

fn replayed(first: u64) -> Failure {
    let message = format!(
        "its capability was used for the dispatch at sequence {first} of the log; nothing was started. Look for a copied \
         dispatch"
    );
    Failure::new(ErrorCode::Replayed, message)
}

/// The orchestrator has given the attempt up, or is about to: by the clock of this host, so the log has the last word.
fn is_overdue(dispatched: &StepDispatched) -> bool {
    OffsetDateTime::parse(&dispatched.deadline, &Rfc3339)
        .is_ok_and(|deadline| deadline <= OffsetDateTime::now_utc())
}

/// The dispatch has waited: it may have been cancelled or settled before anybody listened here.
fn is_stale(dispatch: &Event) -> bool {
    OffsetDateTime::now_utc() - dispatch.stored_at > FRESH
}

/// An attempt that is entered as running here, until the value is dropped.
struct Entered<'a> {
    worker: &'a Worker,
    attempt: &'a Attempt,
    cancel: CancellationToken,
}

impl<'a> Entered<'a> {
    fn new(worker: &'a Worker, attempt: &'a Attempt) -> Option<Self> {
        let cancel = worker.running.enter(attempt)?;
        Some(Self {
            worker,
            attempt,
            cancel,
        })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.worker.running.leave(self.attempt);
    }
}
