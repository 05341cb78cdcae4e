//! The way in from the bus: raw `task.submit` messages, which wait in `COMMANDS` until they are taken.
//!
//! Every message is answered for exactly once it has led to something that stays: an event, or a count where no event
//! may be written. While a dependency is down nothing is fetched and nothing is given up.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use octollm_events::carrier::{ErrorCode, SourceChannel};
use octollm_events::{Bus, Consumer, Delivery, failpoint};
use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::contract::{self, Violations};
use crate::metrics::Metrics;
use crate::outcome::{Origin, Receipt, Refusal};
use crate::reception::Reception;

const STREAM: &str = "COMMANDS";
const CONSUMER: &str = "reflex";
const PRINCIPAL: &str = "bus";

/// Between attempts while a dependency is down; far less than the consumer's ack_wait, so progress keeps the message.
const PAUSE: Duration = Duration::from_secs(1);
const API_TIMEOUT: Duration = Duration::from_secs(2);

/// After so many deliveries a message that fails without a cause outside is given up.
const MAX_DELIVERIES: u64 = 5;

/// How long handlers may take to end once the service stops.
const DRAIN: Duration = Duration::from_secs(8);

/// Why the intake does not fetch; None while it does.
pub type Pause = Option<String>;

/// The consumer's loop and its handlers.
pub struct Intake {
    bus: Bus,
    reception: Arc<Reception>,
    metrics: Metrics,
    in_flight: usize,
    max_body_bytes: usize,
    /// Creation time of `COMMANDS`, part of the ids of submissions that bring none.
    created: OnceCell<String>,
    pause: watch::Sender<Pause>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ack,
    Nak(Duration),
    Term,
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
    /// At most `in_flight` messages are worked on at once; larger ones than `max_body_bytes` are rejected.
    pub fn new(
        bus: Bus,
        reception: Arc<Reception>,
        metrics: Metrics,
        in_flight: usize,
        max_body_bytes: usize,
    ) -> Self {
        let (pause, _) = watch::channel(None);
        Self {
            bus,
            reception,
            metrics,
            in_flight: in_flight.max(1),
            max_body_bytes,
            created: OnceCell::new(),
            pause,
        }
    }

    /// Whether the intake fetches; for `/ready`.
    pub fn pause(&self) -> watch::Receiver<Pause> {
        self.pause.subscribe()
    }

    /// Whether the consumer is there; for `/ready`.
    pub async fn check_consumer(bus: Bus) -> Result<(), String> {
        let subject = format!("$JS.API.CONSUMER.INFO.{STREAM}.{CONSUMER}");
        api(&bus, subject).await.map(|_| ())
    }

    /// Takes messages until `stop`, then gives back what it has not begun and waits for what it has.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut consumer = Consumer::new(self.bus.clone(), STREAM, CONSUMER, stop.clone())
            .with_batch(self.in_flight);
        let permits = Arc::new(Semaphore::new(self.in_flight));
        let mut pause = self.pause.subscribe();
        let mut handlers = JoinSet::new();
        loop {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("nobody closes the semaphore");
            tokio::select! {
                () = stop.cancelled() => {}
                // The sender is ours, so the channel is open.
                _ = pause.wait_for(Option::is_none) => {}
            }
            let Some(delivery) = consumer.next().await else {
                break;
            };
            while handlers.try_join_next().is_some() {}
            handlers.spawn(Arc::clone(&self).handle(delivery, stop.clone(), permit));
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
        stop: CancellationToken,
        _permit: OwnedSemaphorePermit,
    ) {
        failpoint::reach("reflex.taken");
        self.metrics.in_flight.inc();
        if delivery.delivered() > 1 {
            self.metrics.redeliveries.inc();
        }
        let answer = AssertUnwindSafe(self.answer(&delivery, &stop)).catch_unwind();
        let answer = answer.await.unwrap_or_else(|_| {
            self.count("error");
            failed(&delivery, "a defect of this service")
        });
        let (name, answered) = match answer {
            Answer::Ack => ("ack", delivery.ack().await),
            Answer::Nak(delay) => ("nak", delivery.nak(delay).await),
            Answer::Term => ("term", delivery.term().await),
        };
        failpoint::reach("reflex.answered");
        self.metrics.deliveries.with_label_values(&[name]).inc();
        if let Err(error) = answered {
            // The message comes again, finds its event on record, and is acked then.
            tracing::warn!(%error, "delivery not answered");
        }
        self.metrics.in_flight.dec();
    }

    /// Works on a message until it has led to something, however long a dependency is down.
    async fn answer(&self, delivery: &Delivery, stop: &CancellationToken) -> Answer {
        let origin = Origin {
            channel: SourceChannel::Bus,
            principal: PRINCIPAL,
            traceparent: traceparent(delivery),
        };
        loop {
            let reason = match self.attempt(delivery, &origin).await {
                Ok(Err(Refusal::Unavailable { reason, .. })) | Err(reason) => reason,
                Ok(outcome) => {
                    self.resume();
                    return self.settle(delivery, outcome);
                }
            };
            self.count("unavailable");
            self.halt(reason);
            tokio::select! {
                () = stop.cancelled() => return Answer::Nak(Duration::ZERO),
                () = tokio::time::sleep(PAUSE) => {}
            }
            // Where this is lost, the message is delivered twice, which does no harm.
            let _ = delivery.progress().await;
        }
    }

    /// One attempt. The error is a dependency that does not answer before there is an id.
    async fn attempt(
        &self,
        delivery: &Delivery,
        origin: &Origin,
    ) -> Result<Result<Receipt, Refusal>, String> {
        let derived = self.derived_id(delivery).await?;
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
    fn settle(&self, delivery: &Delivery, outcome: Result<Receipt, Refusal>) -> Answer {
        let command = delivery.seq();
        match outcome {
            Ok(Receipt {
                task_id,
                seq,
                repeated,
            }) => {
                self.count(if repeated { "repeated" } else { "received" });
                tracing::info!(%task_id, seq, repeated, command, channel = "bus", "task received");
                Answer::Ack
            }
            Err(refusal) => {
                let outcome = refusal.outcome();
                self.count(outcome);
                if let Refusal::Internal { reason, .. } = &refusal {
                    return failed(delivery, reason);
                }
                let task_id = refusal.task_id().map(|id| id.to_string());
                tracing::info!(
                    task_id,
                    outcome,
                    command,
                    channel = "bus",
                    "submission refused"
                );
                Answer::Ack
            }
        }
    }

    /// The id of a submission that brings none: UUIDv5 of the stream's creation, the message's sequence and its time
    /// in nanoseconds (contract, ids). The same message has the same id however often it is delivered.
    async fn derived_id(&self, delivery: &Delivery) -> Result<Uuid, String> {
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

    async fn stream_created(&self) -> Result<String, String> {
        let info = api(&self.bus, format!("$JS.API.STREAM.INFO.{STREAM}")).await?;
        info["created"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("{STREAM} has no creation time"))
    }

    fn count(&self, outcome: &str) {
        self.metrics
            .submissions
            .with_label_values(&["bus", outcome])
            .inc();
    }

    fn halt(&self, reason: String) {
        self.metrics.paused.set(1);
        let began = self.pause.send_replace(Some(reason.clone())).is_none();
        if began {
            tracing::warn!(reason, "a dependency is down; the intake waits");
        }
    }

    fn resume(&self) {
        self.metrics.paused.set(0);
        let ended = self.pause.send_if_modified(|pause| pause.take().is_some());
        if ended {
            tracing::info!("the dependency is back; the intake goes on");
        }
    }
}

/// What becomes of a message that failed without a cause outside: some more attempts, then the operator's attention.
fn failed(delivery: &Delivery, reason: &str) -> Answer {
    let (command, delivered) = (delivery.seq(), delivery.delivered());
    tracing::error!(
        command,
        delivered,
        reason,
        "a submission from the bus failed"
    );
    if delivered >= MAX_DELIVERIES {
        return Answer::Term;
    }
    Answer::Nak(PAUSE * 2_u32.pow(u32::try_from(delivered).unwrap_or_default()))
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
    use super::*;

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
