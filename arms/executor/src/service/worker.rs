//! Deliveries: taken as there is room, worked on, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use octollm_events::carrier::StepDispatched;
use octollm_events::log::ReadError;
use octollm_events::{Bus, Consumer, Delivery, Event, Log, SchemaViolation, failpoint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cancel::Running;
use super::claim::ClaimError;
use super::engine::Engine;
use super::files::FilesError;
use super::record::{Record, Unrecorded};
use super::replay::Dispatches;
use super::standing::Attempt;

/// The arm of the steps that are ours.
const ARM: &str = "executor";
/// A third of the consumer's `ack_wait`: how often a delivery is reported as being worked on, and how often a long
/// step looks into the log for a cancel that it was not told of.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// When a delivery that can't be handled now comes again.
const LATER: Duration = Duration::from_secs(2);

/// Takes deliveries until `stop`, as many at once as the engine has places; more are left to the broker. Returns when
/// it has been stopped; the deliveries at work are in `working`.
pub async fn serve(
    worker: Arc<Worker>,
    mut consumer: Consumer,
    working: &TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::clone(&worker.engine.places);
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
pub(super) enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
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

impl From<Unrecorded> for Trouble {
    fn from(unrecorded: Unrecorded) -> Self {
        match unrecorded {
            Unrecorded::Read(error) => Self::Read(error),
            Unrecorded::Stopping => Self::Stopping,
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
    pub(super) bus: Bus,
    pub(super) log: Log,
    pub(super) engine: Arc<Engine>,
    pub(super) record: Record,
    pub(super) dispatches: Dispatches,
    pub(super) running: Running,
}

impl Worker {
    /// A worker on this bus.
    #[must_use]
    pub fn new(bus: Bus, engine: Arc<Engine>) -> Self {
        let log = Log::new(bus.clone(), ARM);
        let record = Record::new(
            bus.clone(),
            log.clone(),
            engine.metrics.clone(),
            engine.abandon.clone(),
        );
        Self {
            bus,
            log,
            engine,
            record,
            dispatches: Dispatches::default(),
            running: Running::default(),
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
        self.engine
            .metrics
            .delivery_seconds
            .observe(started.elapsed().as_secs_f64());
    }

    async fn work(&self, delivery: &Delivery) -> Answer {
        failpoint::reach("executor.taken");
        let is_again = delivery.delivered() > 1;
        self.engine.metrics.deliveries.inc();
        self.engine.metrics.redeliveries.inc_by(u64::from(is_again));
        let decoded = delivery
            .event()
            .and_then(|event| Ok((event.decode::<StepDispatched>()?, event)));
        let (dispatched, dispatch) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.engine
                    .metrics
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
                self.engine
                    .metrics
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
}
