//! One delivery: is there still something to do, do it, put the result on record, answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use octollm_events::carrier::{Effect, ErrorCode, StepDispatched};
use octollm_events::log::{AppendError, ReadError};
use octollm_events::{
    Bus, Consumer, Delivery, Event, Log, NewEvent, Position, SchemaViolation, failpoint,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::cancel::Running;
use super::claim::Claims;
use super::files::{self, FilesError};
use super::metrics::Metrics;
use super::recall::recall;
use super::standing::{Attempt, Standing};
use super::watch::SandboxWatch;
use crate::report;
use crate::step::{Assignment, Executor, Failure, Outcome, Recorded};
use crate::workspace::{LayoutError, Workspace, Workspaces};

/// The arm of the steps that are ours.
const ARM: &str = "executor";
/// A third of the consumer's `ack_wait`: how often a delivery is reported as being worked on, and how often a long
/// step looks into the log for a cancel that it was not told of.
const BEAT: Duration = Duration::from_secs(10);
/// When a delivery that can't be handled now comes again.
const LATER: Duration = Duration::from_secs(2);
/// How old a dispatch may be to be run without a look into the log.
const FRESH: Duration = Duration::from_secs(1);
/// Between two tries to put a result on record.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes deliveries until `stop` and runs up to `concurrency` of them at once; more are left to the broker. Returns
/// when it has been stopped; the deliveries at work are in `working`.
pub async fn serve(
    worker: Arc<Worker>,
    mut consumer: Consumer,
    concurrency: usize,
    working: &TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(concurrency));
    loop {
        let place = tokio::select! {
            biased;
            // Lets the consumer give back what it has fetched.
            () = stop.cancelled() => None,
            place = Arc::clone(&places).acquire_owned() => place.ok(),
        };
        let Some(delivery) = consumer.next().await else {
            return;
        };
        let worker = Arc::clone(&worker);
        working.spawn(async move {
            let _place = place;
            worker.handle(delivery).await;
        });
    }
}

/// Why a delivery has to come again. It is not the step's failure, and nothing is on record.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("the claim could not be made: {0}")]
    Claim(std::io::Error),
    #[error("the workspace could not be opened: {0}")]
    Workspace(std::io::Error),
    #[error(transparent)]
    Payload(#[from] SchemaViolation),
    #[error("this executor is stopping")]
    Stopping,
    #[error("it runs here already")]
    Running,
}

impl Trouble {
    fn label(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Files(_) => "files",
            Self::Claim(_) => "claim",
            Self::Workspace(_) => "workspace",
            Self::Payload(_) => "payload",
            Self::Stopping => "stopping",
            Self::Running => "running",
        }
    }
}

/// What the broker is told of a delivery.
enum Answer {
    Done,
    Again(Duration),
    Never,
}

/// Handles deliveries of `step.dispatched`.
pub struct Worker {
    bus: Bus,
    log: Log,
    executor: Executor,
    workspaces: Arc<Workspaces>,
    claims: Claims,
    watch: Arc<SandboxWatch>,
    metrics: Metrics,
    running: Running,
    abandon: CancellationToken,
}

impl Worker {
    /// A worker on this bus. Cancelling `abandon` kills the running steps and hands their deliveries back.
    #[must_use]
    pub fn new(
        bus: Bus,
        executor: Executor,
        workspaces: Arc<Workspaces>,
        claims: Claims,
        watch: Arc<SandboxWatch>,
        metrics: Metrics,
        abandon: CancellationToken,
    ) -> Self {
        let log = Log::new(bus.clone(), ARM);
        Self {
            bus,
            log,
            executor,
            workspaces,
            claims,
            watch,
            metrics,
            running: Running::default(),
            abandon,
        }
    }

    /// Takes note of an event that may end attempts which run here.
    pub fn observe(&self, event: &Event) {
        self.running.observe(event);
    }

    /// Handles one delivery and answers it; the answer follows the record.
    pub async fn handle(&self, delivery: Delivery) {
        let started = Instant::now();
        let mut work = std::pin::pin!(self.work(&delivery));
        let answer = loop {
            tokio::select! {
                answer = &mut work => break answer,
                () = tokio::time::sleep(BEAT) => {
                    if let Err(error) = delivery.progress().await {
                        tracing::warn!(%error, "the broker was not told that the step still runs");
                    }
                }
            }
        };
        let answered = match answer {
            Answer::Done => delivery.ack().await,
            Answer::Again(delay) => delivery.nak(delay).await,
            Answer::Never => delivery.term().await,
        };
        failpoint::reach("executor.answered");
        if let Err(error) = answered {
            tracing::warn!(%error, "it will be delivered again, which does no harm");
        }
        self.metrics
            .delivery_seconds
            .observe(started.elapsed().as_secs_f64());
    }

    async fn work(&self, delivery: &Delivery) -> Answer {
        failpoint::reach("executor.taken");
        let is_again = delivery.delivered() > 1;
        self.metrics.deliveries.inc();
        self.metrics.redeliveries.inc_by(u64::from(is_again));
        let decoded = delivery
            .event()
            .and_then(|event| Ok((event.decode::<StepDispatched>()?, event)));
        let (dispatched, dispatch) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.metrics
                    .handler_failures
                    .with_label_values(&["undecodable"])
                    .inc();
                tracing::error!(%error, "a dispatch can't be read and is given up; its step will count as silent");
                return Answer::Never;
            }
        };
        if dispatched.step.arm != ARM {
            return Answer::Done; // another arm's step
        }
        let attempt = Attempt::of(dispatch.task_id, &dispatched);
        match self
            .attempt(&dispatch, &dispatched, &attempt, is_again)
            .await
        {
            Ok(()) => Answer::Done,
            Err(trouble) => {
                self.metrics
                    .handler_failures
                    .with_label_values(&[trouble.label()])
                    .inc();
                tracing::warn!(%attempt, error = %trouble, "the delivery is handed back");
                Answer::Again(if matches!(trouble, Trouble::Stopping) {
                    Duration::ZERO
                } else {
                    LATER
                })
            }
        }
    }

    /// From a dispatch to its result on record.
    async fn attempt(
        &self,
        dispatch: &Event,
        dispatched: &StepDispatched,
        attempt: &Attempt,
        is_again: bool,
    ) -> Result<(), Trouble> {
        let entered = Entered::new(self, attempt).ok_or(Trouble::Running)?;
        let is_overdue = is_overdue(dispatched);
        let mut expected = dispatch.position();
        if is_again || is_overdue || is_stale(dispatch) {
            let events = self.log.read(attempt.task_id, Some(&expected)).await?;
            match Standing::after(&events, attempt) {
                Standing::Closed => return self.release(attempt),
                Standing::CancelRequested => entered.cancel.cancel(),
                Standing::Open => {}
            }
            expected = events.last().map_or(expected, Event::position);
        }
        let outcome = if entered.cancel.is_cancelled() {
            let message = "the task was cancelled before the step started";
            Outcome::refused(Failure::new(ErrorCode::Cancelled, message))
        } else if is_overdue {
            let message = format!(
                "the step's deadline {} had passed before it could start",
                dispatched.deadline
            );
            Outcome::refused(Failure::new(ErrorCode::Timeout, message))
        } else {
            match self
                .run(dispatch, dispatched, attempt, &entered.cancel)
                .await?
            {
                Some(outcome) => outcome,
                None => return self.release(attempt),
            }
        };
        failpoint::reach("executor.ended");
        let code = outcome.failure.as_ref().map(|failure| failure.code);
        if self.abandon.is_cancelled() && code == Some(ErrorCode::Cancelled) {
            return Err(Trouble::Stopping);
        }
        match code {
            Some(ErrorCode::Cancelled) => self.metrics.cancels.inc(),
            Some(ErrorCode::SandboxUnavailable) => self.watch.doubt().await,
            _ => {}
        }
        self.count(&outcome);
        let event = report::event(dispatch, dispatched, &outcome)?;
        self.settle(event, expected, attempt, &outcome).await?;
        failpoint::reach("executor.settled");
        self.release(attempt)
    }

    /// Runs the step; None if it is settled on record. A failure of the step is an outcome; an error means that it could
    /// not be tried.
    async fn run(
        &self,
        dispatch: &Event,
        dispatched: &StepDispatched,
        attempt: &Attempt,
        cancel: &CancellationToken,
    ) -> Result<Option<Outcome>, Trouble> {
        let assignment = match Assignment::parse(&dispatched.step) {
            Ok(assignment) => assignment,
            Err(failure) => return Ok(Some(Outcome::refused(failure))),
        };
        let workspace = match self.workspace(attempt.task_id).await? {
            Ok(workspace) => Arc::new(workspace),
            Err(failure) => return Ok(Some(Outcome::refused(failure))),
        };
        let recorded = self.recorded(attempt.task_id, &assignment).await?;
        let claims = dispatched.step.effect == Effect::SideEffecting && assignment.has_effects();
        if claims && !self.claims.take(attempt).map_err(Trouble::Claim)? {
            let message = "an executor ended while this side-effecting step ran, so nobody can say whether its effect \
                           took place; check it by hand before you run it again";
            return Ok(Some(Outcome::refused(Failure::new(
                ErrorCode::UnknownOutcome,
                message,
            ))));
        }
        if claims {
            failpoint::reach("executor.claimed");
        }
        // A broker that was killed forgets its latest acks, and then calls a delivery the first that is none. With the
        // claim in hand nobody else can settle the attempt any more, so what the log says now is what counts.
        if claims {
            let since = self
                .log
                .read(attempt.task_id, Some(&dispatch.position()))
                .await;
            match since.map(|events| Standing::after(&events, attempt)) {
                Ok(Standing::Open) => {}
                Ok(Standing::CancelRequested) => cancel.cancel(),
                Ok(Standing::Closed) => return Ok(None),
                Err(error) => {
                    // Nothing was started: the claim would only make the next delivery an unknown outcome.
                    self.release(attempt)?;
                    return Err(error.into());
                }
            }
        }
        failpoint::reach("executor.started");
        let _counted = self.metrics.count_running();
        tracing::info!(%attempt, effect = %dispatched.step.effect, "the step starts");
        tokio::select! {
            outcome = self.executor.execute(assignment, workspace, recorded, cancel) => Ok(Some(outcome)),
            never = self.look_out(dispatch, attempt, cancel) => match never {},
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
                () = self.abandon.cancelled() => {
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

    /// The task's workspace, laid out now if it is the task's first step here. The inner error is the step's failure.
    async fn workspace(&self, task_id: Uuid) -> Result<Result<Workspace, Failure>, Trouble> {
        if let Some(workspace) = self.workspaces.find(task_id).map_err(Trouble::Workspace)? {
            return Ok(Ok(workspace));
        }
        let entries = match files::fetch(&self.bus, &self.log, task_id).await {
            Ok(entries) => entries,
            Err(FilesError::Corrupt(problem)) => {
                return Ok(Err(Failure::new(
                    ErrorCode::InternalError,
                    format!("the initial files: {problem}"),
                )));
            }
            Err(unavailable) => return Err(unavailable.into()),
        };
        let workspaces = Arc::clone(&self.workspaces);
        let laid_out = tokio::task::spawn_blocking(move || workspaces.lay_out(task_id, &entries))
            .await
            .map_err(|error| Trouble::Workspace(error.into()))?;
        Ok(match laid_out {
            Ok(workspace) => {
                self.metrics.workspaces.inc();
                Ok(workspace)
            }
            Err(LayoutError::Root(error)) => return Err(Trouble::Workspace(error)),
            Err(error) => {
                let code = match &error {
                    LayoutError::Entry {
                        errno: Errno::ENOSPC | Errno::EDQUOT,
                        ..
                    } => ErrorCode::DiskLimit,
                    _ => ErrorCode::InvalidRequest,
                };
                Err(Failure::new(code, error.to_string()))
            }
        })
    }

    async fn recorded(&self, task_id: Uuid, assignment: &Assignment) -> Result<Recorded, Trouble> {
        let steps: Vec<String> = assignment.recalled_steps().map(str::to_owned).collect();
        if steps.is_empty() {
            return Ok(Recorded::new());
        }
        Ok(recall(&self.log.read(task_id, None).await?, &steps))
    }

    /// Puts the result on record if its attempt still waits for one. The result stays here while the log is out of
    /// reach: the step has run, and must not run again for that.
    async fn settle(
        &self,
        event: NewEvent,
        mut expected: Position,
        attempt: &Attempt,
        outcome: &Outcome,
    ) -> Result<(), Trouble> {
        let id = event.id(attempt.task_id);
        loop {
            let trouble: Box<dyn std::error::Error + Send + Sync> =
                match self.log.append(attempt.task_id, &event, &expected).await {
                    Ok(_) => return self.recorded_as(outcome, attempt),
                    Err(AppendError::TaskEnded { .. }) => return self.late(attempt),
                    Err(AppendError::Conflict { .. }) => {
                        self.metrics.conflicts.inc();
                        match self.log.read(attempt.task_id, Some(&expected)).await {
                            Ok(events) => {
                                if let Some(own) = events.iter().find(|stored| stored.id == id) {
                                    // Another run of this attempt may have been faster: only our own words are ours.
                                    let is_ours = own.body == *event.body();
                                    return if is_ours {
                                        self.recorded_as(outcome, attempt)
                                    } else {
                                        self.late(attempt)
                                    };
                                }
                                if Standing::after(&events, attempt) == Standing::Closed {
                                    return self.late(attempt);
                                }
                                let Some(last) = events.last() else {
                                    return Err(ReadError::ChainBroken {
                                        task_id: attempt.task_id,
                                        seq: expected.seq,
                                        reason: "the log has moved on, but nothing follows"
                                            .to_owned(),
                                    }
                                    .into());
                                };
                                expected = last.position();
                                continue;
                            }
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
                () = self.abandon.cancelled() => return Err(Trouble::Stopping),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    fn recorded_as(&self, outcome: &Outcome, attempt: &Attempt) -> Result<(), Trouble> {
        let result = match &outcome.failure {
            None => "executed".to_owned(),
            Some(failure) => failure.code.to_string(),
        };
        self.metrics.results.with_label_values(&[&result]).inc();
        let duration_ms = outcome.usage.duration.as_millis();
        tracing::info!(%attempt, result, duration_ms, "the result is on record");
        Ok(())
    }

    fn late(&self, attempt: &Attempt) -> Result<(), Trouble> {
        failpoint::reach("executor.late");
        self.metrics.late_results.inc();
        tracing::warn!(%attempt, "the result came after the attempt was settled and is dropped");
        Ok(())
    }

    /// The attempt is settled: its claim, if there is one, has served.
    fn release(&self, attempt: &Attempt) -> Result<(), Trouble> {
        self.claims.release(attempt).map_err(Trouble::Claim)
    }

    fn count(&self, outcome: &Outcome) {
        self.metrics
            .step_seconds
            .observe(outcome.usage.duration.as_secs_f64());
        self.metrics
            .cpu_ms
            .inc_by(u64::try_from(outcome.usage.cpu.as_millis()).unwrap_or(u64::MAX));
        if let Some((stdout, stderr)) = &outcome.output {
            self.metrics
                .output_bytes
                .inc_by(stdout.bytes + stderr.bytes);
        }
    }
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
