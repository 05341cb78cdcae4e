//! The way in from the bus: raw `task.submit` messages, which wait in `COMMANDS` until they are taken.
//!
//! Every message is answered for exactly once it has led to something that stays: an event, or a count where no event
//! may be written. While a dependency is down nothing is fetched and nothing is given up. What fails time and again
//! without a cause outside is put on record as rejected, so that whoever submitted it learns of it, and given up.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use octollm_events::carrier::{ErrorCode, SourceChannel};
use octollm_events::consumer::{ATTEMPTS, Settled};
use octollm_events::gate::{Gate, Unavailable};
use octollm_events::{Bus, Consumer, Delivery, Unhandled, failpoint};
use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::contract::{self, Violations};
use crate::limits::{Caller, Endpoint, Limits, bus_tier};
use crate::metrics::Metrics;
use crate::outcome::{Origin, Receipt, Refusal};
use crate::reception::Reception;
use crate::settings::Settings;

const STREAM: &str = "COMMANDS";
const CONSUMER: &str = "reflex";
/// Raw publishes are nobody's in particular, so all of them share what this one may do.
const PRINCIPAL: &str = "bus";

const API_TIMEOUT: Duration = Duration::from_secs(2);

/// How long handlers may take to end once the service stops.
const DRAIN: Duration = Duration::from_secs(8);

/// The consumer's loop and its handlers.
pub struct Intake {
    bus: Bus,
    reception: Arc<Reception>,
    limits: Arc<Limits>,
    caller: Caller,
    metrics: Metrics,
    in_flight: usize,
    max_body_bytes: usize,
    /// Creation time of `COMMANDS`, part of the ids of submissions that bring none.
    created: OnceCell<String>,
}

/// A message that can't become a task.
struct Unfit {
    task_id: Uuid,
    code: ErrorCode,
    violations: Violations,
    /// The submission, where it is JSON.
    document: Option<Value>,
}

impl Intake {
    /// At most `in_flight` messages are worked on at once; larger ones than `max_body_bytes` are rejected, and those
    /// beyond the limits too.
    pub fn new(
        bus: Bus,
        reception: Arc<Reception>,
        limits: Arc<Limits>,
        metrics: Metrics,
        settings: &Settings,
    ) -> Self {
        let caller = Caller {
            user: Some(PRINCIPAL.into()),
            tier: bus_tier(&settings.limits, settings.host),
            address: None,
        };
        Self {
            bus,
            reception,
            limits,
            caller,
            metrics,
            in_flight: settings.in_flight.max(1),
            max_body_bytes: settings.max_body_bytes,
            created: OnceCell::new(),
        }
    }

    /// The consumer that [`Intake::run`] takes from, until `stop`.
    pub fn consumer(&self, stop: CancellationToken) -> Consumer {
        Consumer::new(self.bus.clone(), STREAM, CONSUMER, stop).with_batch(self.in_flight)
    }

    /// Whether the consumer is there; for `/ready`.
    pub async fn check_consumer(bus: Bus) -> Result<(), String> {
        let subject = format!("$JS.API.CONSUMER.INFO.{STREAM}.{CONSUMER}");
        api(&bus, subject).await.map(|_| ())
    }

    /// Takes messages until the consumer is stopped, and waits for what it has begun.
    pub async fn run(self: Arc<Self>, mut consumer: Consumer) {
        let permits = Arc::new(Semaphore::new(self.in_flight));
        let gate = consumer.gate();
        let mut handlers = JoinSet::new();
        loop {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("nobody closes the semaphore");
            let Some(delivery) = consumer.next().await else {
                break;
            };
            while handlers.try_join_next().is_some() {}
            handlers.spawn(Arc::clone(&self).handle(delivery, gate.clone(), permit));
        }
        let drained = timeout(DRAIN, async {
            while handlers.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(
                left = handlers.len(),
                "submissions were left to the next start"
            );
        }
    }

    async fn handle(
        self: Arc<Self>,
        delivery: Delivery,
        gate: Gate,
        _permit: OwnedSemaphorePermit,
    ) {
        failpoint::reach("reflex.taken");
        self.metrics.in_flight.inc();
        if delivery.delivered() > 1 {
            self.metrics.redeliveries.inc();
        }
        let settled = delivery.settle(self.work(&delivery)).await;
        failpoint::reach("reflex.answered");
        let deliveries = &self.metrics.deliveries;
        deliveries.with_label_values(&[settled.as_str()]).inc();
        if settled == Settled::Unavailable {
            self.count("unavailable");
        }
        self.metrics.paused.set(i64::from(gate.check().is_err()));
        self.metrics.in_flight.dec();
    }

    /// Has a message lead to something that stays.
    async fn work(&self, delivery: &Delivery) -> Result<(), Unhandled> {
        let origin = Origin {
            channel: SourceChannel::Bus,
            principal: PRINCIPAL.into(),
            traceparent: traceparent(delivery),
        };
        let attempted = AssertUnwindSafe(self.attempt(delivery, &origin)).catch_unwind();
        let failed = match attempted.await {
            Ok(outcome) => match self.settle(delivery, outcome?) {
                Err(Unhandled::Failed(reason)) => reason,
                settled => return settled,
            },
            Err(_) => "panic: a defect of this service".to_owned(),
        };
        self.count("error");
        if delivery.failures() + 1 >= ATTEMPTS {
            // Whatever fails here too changes nothing about the message: it is given up.
            let refused = AssertUnwindSafe(self.refuse(delivery, &origin)).catch_unwind();
            refused.await.unwrap_or(Ok(()))?;
        }
        Err(Unhandled::Failed(failed))
    }

    /// Puts on record that a submission could not be handled: it leaves COMMANDS for good, and nobody would learn of it.
    async fn refuse(&self, delivery: &Delivery, origin: &Origin) -> Result<(), Unavailable> {
        let derived = self.derived_id(delivery).await?;
        let document = contract::parse(delivery.body()).ok();
        let given = document.as_ref().and_then(contract::task_id);
        let message = format!(
            "could not be handled in {ATTEMPTS} attempts (octo dlq ls); submit it again under another task_id"
        );
        let (task_id, document) = (given.unwrap_or(derived), document.as_ref());
        let given_up = self.reception.give_up(task_id, &message, document, origin);
        match given_up.await {
            Err(Refusal::Unavailable { reason, .. }) => Err(log_down(reason)),
            _ => Ok(()),
        }
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        origin: &Origin,
    ) -> Result<Result<Receipt, Refusal>, Unavailable> {
        let derived = self.derived_id(delivery).await?;
        let taken = self.limits.take(&self.caller, Endpoint::Tasks, 1).await;
        if let Some(refused) = taken.filter(|taken| !taken.admitted) {
            let document = contract::parse(delivery.body()).ok();
            let given = document.as_ref().and_then(contract::task_id);
            let (task_id, document) = (given.unwrap_or(derived), document.as_ref());
            return Ok(self
                .reception
                .limit(task_id, &refused, document, origin)
                .await);
        }
        Ok(match self.submit(delivery.body(), derived, origin).await {
            Ok(outcome) => outcome,
            Err(Unfit {
                task_id,
                code,
                violations,
                document,
            }) => {
                self.reception
                    .reject(task_id, code, &violations, document.as_ref(), origin)
                    .await
            }
        })
    }

    /// Submits what keeps the contract; the rest is to be put on record as rejected.
    async fn submit(
        &self,
        body: &[u8],
        derived: Uuid,
        origin: &Origin,
    ) -> Result<Result<Receipt, Refusal>, Unfit> {
        let invalid = |task_id, violations, document| Unfit {
            task_id,
            code: ErrorCode::InvalidRequest,
            violations,
            document,
        };
        let too_large = |task_id, message: String, document| Unfit {
            task_id,
            code: ErrorCode::PayloadTooLarge,
            violations: Violations::one("", message),
            document,
        };
        if body.len() > self.max_body_bytes {
            return Err(too_large(
                derived,
                format!("must be at most {} bytes", self.max_body_bytes),
                None,
            ));
        }
        let document =
            contract::parse(body).map_err(|violations| invalid(derived, violations, None))?;
        let task_id = contract::task_id(&document).unwrap_or(derived);
        let submission = match contract::read(&document) {
            Ok(submission) => submission,
            Err(violations) => return Err(invalid(task_id, violations, Some(document))),
        };
        match self
            .reception
            .submit(task_id, submission, body.len(), origin)
            .await
        {
            Err(Refusal::Invalid(violations)) => Err(invalid(task_id, violations, Some(document))),
            Err(Refusal::TooLarge { message, .. }) => {
                Err(too_large(task_id, message, Some(document)))
            }
            outcome => Ok(outcome),
        }
    }

    /// Counts and logs what a message led to.
    fn settle(
        &self,
        delivery: &Delivery,
        outcome: Result<Receipt, Refusal>,
    ) -> Result<(), Unhandled> {
        let command = delivery.seq();
        match outcome {
            Ok(Receipt {
                task_id,
                seq,
                repeated,
            }) => {
                self.count(if repeated { "repeated" } else { "received" });
                tracing::info!(%task_id, seq, repeated, command, channel = "bus", "task received");
                Ok(())
            }
            Err(Refusal::Unavailable { reason, .. }) => Err(log_down(reason).into()),
            Err(Refusal::Internal { task_id, reason }) => {
                Err(Unhandled::Failed(format!("task {task_id}: {reason}")))
            }
            Err(refusal) => {
                let outcome = refusal.outcome();
                self.count(outcome);
                let task_id = refusal.task_id().map(|id| id.to_string());
                tracing::info!(
                    task_id,
                    outcome,
                    command,
                    channel = "bus",
                    "submission refused"
                );
                Ok(())
            }
        }
    }

    /// The id of a submission that brings none: UUIDv5 of the stream's creation, the message's sequence and its time
    /// in nanoseconds (contract, ids). The same message has the same id however often it is delivered.
    async fn derived_id(&self, delivery: &Delivery) -> Result<Uuid, Unavailable> {
        let created = self
            .created
            .get_or_try_init(|| self.stream_created())
            .await?;
        Ok(derived_id(
            created,
            delivery.seq(),
            delivery.stored_at().unix_timestamp_nanos(),
        ))
    }

    async fn stream_created(&self) -> Result<String, Unavailable> {
        let down = |reason| Unavailable {
            dependency: "nats",
            reason,
        };
        let info = api(&self.bus, format!("$JS.API.STREAM.INFO.{STREAM}"))
            .await
            .map_err(down)?;
        info["created"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| down(format!("{STREAM} has no creation time")))
    }

    fn count(&self, outcome: &str) {
        self.metrics
            .submissions
            .with_label_values(&["bus", outcome])
            .inc();
    }
}

/// What a submission is written to does not answer: the log, or the store of its files.
fn log_down(reason: String) -> Unavailable {
    Unavailable {
        dependency: "log",
        reason,
    }
}

fn derived_id(created: &str, seq: u64, nanoseconds: i128) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"octollm");
    Uuid::new_v5(
        &namespace,
        format!("{created}/{seq}/{nanoseconds}").as_bytes(),
    )
}

fn traceparent(delivery: &Delivery) -> Option<String> {
    let headers = delivery.headers()?;
    let value = headers
        .get("traceparent")
        .or_else(|| headers.get("ce-traceparent"))?;
    Some(value.as_str().to_owned())
}

/// A request to the broker's API; an error is its own words.
async fn api(bus: &Bus, subject: String) -> Result<Value, String> {
    let answer = timeout(
        API_TIMEOUT,
        bus.client().request(subject, bytes::Bytes::new()),
    )
    .await;
    let answer = answer
        .map_err(|_| "the broker does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    match answer["error"]["description"].as_str() {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use octollm_events::Log;
    use octollm_events::carrier::TaskRejected;
    use octollm_events::testing::NatsServer;
    use prometheus::Registry;
    use serde_json::json;

    use super::*;
    use crate::artifacts::Artifacts;
    use crate::digest::DigestKey;

    #[tokio::test]
    async fn what_could_not_be_handled_is_on_record_as_rejected() {
        let server = NatsServer::start().await;
        let bus = server.connect("reflex").await;
        let home = tempfile::tempdir().expect("a temporary directory");
        let key = home.path().join("digest.key");
        std::fs::write(&key, "5a".repeat(32)).expect("the key is written");
        let metrics = Metrics::new(&Registry::new()).expect("new names");
        let log = Log::new(bus.clone(), "reflex");
        let reception = Reception::new(
            log.clone(),
            Artifacts::new(bus.clone()),
            DigestKey::read(&key).expect("a key"),
            octollm_screen::Ruleset::builtin(),
            metrics.clone(),
        );
        let settings: Settings = serde_json::from_value(json!({
            "digest_key_file": key,
            "in_flight": 2,
            "max_body_bytes": 1024,
        }))
        .expect("settings");
        let limits = Limits::new(
            &settings.limits,
            None,
            &DigestKey::read(&key).expect("a key"),
            metrics.clone(),
        );
        let intake = Intake::new(
            bus.clone(),
            Arc::new(reception),
            Arc::new(limits),
            metrics,
            &settings,
        );
        let mut consumer = intake.consumer(CancellationToken::new());
        let given = Uuid::new_v4();
        let bodies = [
            json!({ "task_id": given, "goal": "Count" }).to_string(),
            "no JSON".to_owned(),
        ];
        for body in bodies {
            let stored = bus.client().request("task.submit", body.into()).await;
            stored.expect("the broker stores it");
            let delivery = consumer.next().await.expect("it was not stopped");
            let origin = Origin {
                channel: SourceChannel::Bus,
                principal: PRINCIPAL.into(),
                traceparent: None,
            };
            let refused = intake.refuse(&delivery, &origin).await;
            refused.expect("the log is there");
            let derived = intake.derived_id(&delivery).await.expect("it has one");
            let task_id = if delivery.seq() == 1 { given } else { derived };
            let events = log.read(task_id, None).await.expect("it can be read");
            let rejected: TaskRejected = events[0].decode().expect("it keeps its schema");
            assert_eq!(rejected.code, ErrorCode::InternalError);
            assert!(
                rejected.message.contains("submit it again"),
                "{}",
                rejected.message
            );
        }
    }

    #[test]
    fn a_derived_id_follows_the_contract() {
        // Computed with Python's uuid module from the same parts.
        let id = derived_id(
            "2026-11-22T12:00:00.123456789Z",
            7,
            1_795_348_800_123_456_789,
        );
        assert_eq!(id.to_string(), "3c308429-6132-5121-9b5a-38fc3b2596bb");
    }
}
