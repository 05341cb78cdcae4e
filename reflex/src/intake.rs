//! The way in from the bus: raw `task.submit` messages, which wait in `COMMANDS` until they are taken.
//!
//! Every message is answered for exactly once it has led to something that stays: an event, or a count where no event
//! may be written. While a dependency is down nothing is fetched and nothing is given up.

use std::sync::Arc;
use std::time::Duration;

use octollm_events::carrier::{ErrorCode, SourceChannel};
use octollm_events::{Bus, Consumer, Delivery};
use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::contract::{self, Violations};
use crate::metrics::Metrics;
use crate::reception::{Origin, Receipt, Reception, Refusal};

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
            while let Some(ended) = handlers.try_join_next() {
                report(&ended);
            }
            handlers.spawn(Arc::clone(&self).handle(delivery, stop.clone(), permit));
        }
        let drained = timeout(DRAIN, async {
            while let Some(ended) = handlers.join_next().await {
                report(&ended);
            }
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
        self.metrics.in_flight.inc();
        if delivery.delivered() > 1 {
            self.metrics.redeliveries.inc();
        }
        let answer = self.answer(&delivery, &stop).await;
        let (name, answered) = match answer {
            Answer::Ack => ("ack", delivery.ack().await),
            Answer::Nak(delay) => ("nak", delivery.nak(delay).await),
            Answer::Term => ("term", delivery.term().await),
        };
        self.metrics.deliveries.with_label_values(&[name]).inc();
        if let Err(error) = answered {
            // The message comes again, finds its event on record, and is acked then.
            tracing::warn!(%error, "delivery not answered");
        }
        self.metrics.in_flight.dec();
    }

    /// Works on a message until it has led to something, however long a dependency is down.
    async fn answer(&self, delivery: &Delivery, stop: &CancellationToken) -> Answer {
        loop {
            let (task_id, refusal) = match self.attempt(delivery).await {
                Ok(receipt) => {
                    self.resume();
                    let outcome = if receipt.repeated {
                        "repeated"
                    } else {
                        "received"
                    };
                    self.count(outcome);
                    let Receipt {
                        task_id,
                        seq,
                        repeated,
                    } = receipt;
                    tracing::info!(%task_id, seq, repeated, channel = "bus", "task received");
                    return Answer::Ack;
                }
                Err(refused) => refused,
            };
            self.count(refusal.outcome());
            match refusal {
                Refusal::Unavailable { reason, .. } => {
                    self.halt(reason);
                    tokio::select! {
                        () = stop.cancelled() => return Answer::Nak(Duration::ZERO),
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    // Lost with the connection it is delivered again, which does no harm.
                    let _ = delivery.progress().await;
                }
                Refusal::Internal { reason, .. } => {
                    self.resume();
                    let delivered = delivery.delivered();
                    tracing::error!(task_id = ?task_id, message = delivery.seq(), delivered, reason, "submission failed");
                    if delivered >= MAX_DELIVERIES {
                        return Answer::Term;
                    }
                    return Answer::Nak(PAUSE * 2_u32.pow(u32::try_from(delivered).unwrap_or(0)));
                }
                other => {
                    self.resume();
                    let outcome = other.outcome();
                    tracing::info!(task_id = ?task_id, message = delivery.seq(), outcome, channel = "bus", "submission refused");
                    return Answer::Ack;
                }
            }
        }
    }

    /// One attempt; a refusal comes with the task's id where one could be made.
    async fn attempt(&self, delivery: &Delivery) -> Result<Receipt, (Option<Uuid>, Refusal)> {
        let derived = self.derived_id(delivery).await.map_err(|reason| {
            (
                None,
                Refusal::Unavailable {
                    task_id: Uuid::nil(),
                    reason,
                },
            )
        })?;
        let body = delivery.body();
        let origin = Origin {
            channel: SourceChannel::Bus,
            principal: PRINCIPAL,
            traceparent: traceparent(delivery),
        };
        if body.len() > self.max_body_bytes {
            let violations =
                Violations::one("", format!("must be at most {} bytes", self.max_body_bytes));
            return self
                .reject(
                    derived,
                    ErrorCode::PayloadTooLarge,
                    &violations,
                    None,
                    &origin,
                )
                .await;
        }
        let document = match contract::parse(body) {
            Ok(document) => document,
            Err(violations) => {
                return self
                    .reject(
                        derived,
                        ErrorCode::InvalidRequest,
                        &violations,
                        None,
                        &origin,
                    )
                    .await;
            }
        };
        let task_id = contract::task_id(&document).unwrap_or(derived);
        let submission = match contract::read(&document) {
            Ok(submission) => submission,
            Err(violations) => {
                return self
                    .reject(
                        task_id,
                        ErrorCode::InvalidRequest,
                        &violations,
                        Some(&document),
                        &origin,
                    )
                    .await;
            }
        };
        match self
            .reception
            .submit(task_id, submission, body.len(), &origin)
            .await
        {
            Ok(receipt) => Ok(receipt),
            Err(Refusal::Invalid(violations)) => {
                self.reject(
                    task_id,
                    ErrorCode::InvalidRequest,
                    &violations,
                    Some(&document),
                    &origin,
                )
                .await
            }
            Err(Refusal::TooLarge { message, .. }) => {
                let violations = Violations::one("", message);
                self.reject(
                    task_id,
                    ErrorCode::PayloadTooLarge,
                    &violations,
                    Some(&document),
                    &origin,
                )
                .await
            }
            Err(refusal) => Err((Some(task_id), refusal)),
        }
    }

    async fn reject(
        &self,
        task_id: Uuid,
        code: ErrorCode,
        violations: &Violations,
        document: Option<&Value>,
        origin: &Origin,
    ) -> Result<Receipt, (Option<Uuid>, Refusal)> {
        let rejected = self
            .reception
            .reject(task_id, code, violations, document, origin)
            .await;
        rejected.map_err(|refusal| (Some(task_id), refusal))
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

/// A handler that panicked is a defect; its message comes again and is counted.
fn report(ended: &Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a handler ended in a defect");
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
