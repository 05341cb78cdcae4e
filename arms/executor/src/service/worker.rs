//! Deliveries: taken as there is room, worked on, answered.
//!
//! A host without a sandbox is no outage here: a step that needs one fails with SANDBOX_UNAVAILABLE on record, which the
//! saga tries again as its policy allows, and file steps go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use octollm_events::carrier::StepDispatched;
use octollm_events::gate::Unavailable;
use octollm_events::log::ReadError;
use octollm_events::{Bus, Consumer, Delivery, Event, Log, SchemaViolation, Unhandled, failpoint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cancel::Running;
use super::claim::ClaimError;
use super::engine::Engine;
use super::notary::Unsigned;
use super::record::{Record, Unrecorded};
use super::replay::Dispatches;
use super::snapshots::SnapshotError;
use super::standing::Attempt;

/// The arm of the steps that are ours.
pub(super) const ARM: &str = "executor";
/// How often a long step looks into the log for a cancel that it was not told of.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// When a delivery of a step that runs here already comes again.
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
        // A place is not kept while there is nothing to do: a request over HTTP may want it.
        tokio::select! {
            biased;
            // Lets the consumer give back what it has fetched.
            () = stop.cancelled() => {}
            place = places.acquire() => drop(place),
        }
        let Some(delivery) = consumer.next().await else {
            return;
        };
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let worker = Arc::clone(&worker);
        working.spawn(async move { worker.handle(delivery, place).await });
    }
}

/// Why a delivery has to come again. It is not the step's failure, and nothing is on record.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Payload(#[from] SchemaViolation),
    #[error(transparent)]
    Unsigned(Unsigned),
    #[error("this executor is stopping")]
    Stopping,
    #[error("it runs here already")]
    Running,
}

impl Trouble {
    fn label(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Snapshot(_) => "snapshot",
            Self::Claim(_) => "claim",
            Self::Payload(_) => "payload",
            Self::Unsigned(_) => "unsigned",
            Self::Stopping => "stopping",
            Self::Running => "running",
        }
    }
}

impl From<Unrecorded> for Trouble {
    fn from(unrecorded: Unrecorded) -> Self {
        match unrecorded {
            Unrecorded::Read(error) => Self::Read(error),
            Unrecorded::Unsigned(error) => Self::Unsigned(error),
            Unrecorded::Payload(violation) => Self::Payload(violation),
            Unrecorded::Stopping => Self::Stopping,
        }
    }
}

impl From<Trouble> for Unhandled {
    fn from(trouble: Trouble) -> Self {
        let text = trouble.to_string();
        match trouble {
            Trouble::Read(error) => error.into(),
            Trouble::Snapshot(SnapshotError::Unavailable(_)) => down("artifacts", text),
            Trouble::Snapshot(_) => Self::Failed(format!("Corrupt: {text}")),
            Trouble::Claim(_) => down("claims", text),
            Trouble::Payload(violation) | Trouble::Unsigned(Unsigned::Payload(violation)) => {
                violation.into()
            }
            Trouble::Unsigned(_) => Self::Failed(format!("Unsigned: {text}")),
            Trouble::Stopping => Self::NotNow {
                reason: "this executor is stopping",
                delay: Duration::ZERO,
            },
            Trouble::Running => Self::NotNow {
                reason: "it runs here already",
                delay: LATER,
            },
        }
    }
}

fn down(dependency: &'static str, reason: String) -> Unhandled {
    Unavailable { dependency, reason }.into()
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
        let record = Record::new(log.clone(), Arc::clone(&engine));
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

    /// Handles one delivery and answers it; the answer follows the record. Without a `place` it waits for one first.
    pub async fn handle(&self, delivery: Delivery, place: Option<OwnedSemaphorePermit>) {
        let started = Instant::now();
        let work = async {
            let _place = match place {
                Some(place) => Some(place),
                None => Arc::clone(&self.engine.places).acquire_owned().await.ok(),
            };
            self.work(&delivery).await
        };
        delivery.settle(work).await;
        failpoint::reach("executor.answered");
        self.engine
            .metrics
            .delivery_seconds
            .observe(started.elapsed().as_secs_f64());
    }

    async fn work(&self, delivery: &Delivery) -> Result<(), Unhandled> {
        failpoint::reach("executor.taken");
        let is_again = delivery.delivered() > 1;
        self.engine.metrics.deliveries.inc();
        self.engine.metrics.redeliveries.inc_by(u64::from(is_again));
        let decoded = delivery
            .event()
            .and_then(|event| Ok((event.decode::<StepDispatched>()?, event)));
        let (dispatched, dispatch) = decoded.inspect_err(|_| self.count("undecodable"))?;
        if dispatched.step.arm != ARM {
            return Ok(()); // another arm's step
        }
        let attempt = Attempt::of(dispatch.task_id, &dispatched);
        let handled = self
            .attempt(&dispatch, &dispatched, &attempt, is_again)
            .await;
        handled.map_err(|trouble| {
            self.count(trouble.label());
            tracing::warn!(%attempt, error = %trouble, "the step could not be tried");
            trouble.into()
        })
    }

    fn count(&self, reason: &str) {
        let failures = &self.engine.metrics.handler_failures;
        failures.with_label_values(&[reason]).inc();
    }
}
