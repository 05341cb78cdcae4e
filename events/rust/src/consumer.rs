//! Durable consumers: at-least-once deliveries that a service answers for.

use crate::bus::Bus;
use crate::envelope::{Event, Undecodable};
use crate::gate::{Gate, Unavailable, jittered};
use crate::log::ReadError;
use crate::pull::{Pull, Pulled};
use crate::schema::SchemaViolation;
use crate::streams;
use async_nats::HeaderMap;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use futures::FutureExt;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Failures of one message after which it is given up.
pub const ATTEMPTS: u32 = 5;

const BATCH: usize = 64;
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Messages whose failures are counted; the oldest gives way, and gets more attempts for it.
const COUNTED: usize = 4096;
/// Longest reason that the broker is told, characters.
const REASON_LENGTH: usize = 300;

/// Why a delivery is not done (contract, Deliveries). The texts go into logs and the dead-letter view: an error's
/// class and a short message, no secrets, no payload.
#[derive(Debug, thiserror::Error)]
pub enum Unhandled {
    /// A dependency is down: handed back, which counts nowhere; nothing more is taken until one goes through.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Handed back, though nothing is wrong.
    #[error("{reason}")]
    NotNow {
        /// What has to happen first.
        reason: &'static str,
        /// When it should come again.
        delay: Duration,
    },
    /// Counted, tried again after a growing delay, given up after the fifth.
    #[error("{0}")]
    Failed(String),
    /// It can never be handled: given up at once.
    #[error("{0}")]
    Unreadable(String),
}

impl From<ReadError> for Unhandled {
    fn from(error: ReadError) -> Self {
        match error {
            // What may not be read is an operator's matter, and no task's fault.
            ReadError::Unavailable { .. } | ReadError::Forbidden { .. } => {
                Self::Unavailable(Unavailable {
                    dependency: "log",
                    reason: error.to_string(),
                })
            }
            ReadError::ChainBroken { .. } => Self::Failed(format!("ChainBroken: {error}")),
            ReadError::Undecodable(error) => error.into(),
        }
    }
}

impl From<Undecodable> for Unhandled {
    fn from(error: Undecodable) -> Self {
        Self::Unreadable(format!("Undecodable: {error}"))
    }
}

impl From<SchemaViolation> for Unhandled {
    fn from(error: SchemaViolation) -> Self {
        Self::Failed(format!("SchemaViolation: {error}"))
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Acknowledged.
    Done,
    /// Handed back, though nothing is wrong.
    NotNow,
    /// Handed back for an outage.
    Unavailable,
    /// To be tried again.
    Failed,
    /// Never again: the stream `ADVISORY` says why.
    GivenUp,
}

impl Settled {
    /// The outcome's name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotNow => "not_now",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

/// The answer to a delivery could not be sent; the broker will deliver it again.
#[derive(Debug, thiserror::Error)]
#[error("the answer to delivery {seq} was not sent: {reason}")]
pub struct AnswerError {
    /// Stream sequence of the message.
    pub seq: u64,
    /// The client's words.
    pub reason: String,
}

/// A durable pull consumer of `streams.json`.
pub struct Consumer {
    pull: Pull,
    batch: usize,
    stop: CancellationToken,
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
}

/// What the deliveries of a consumer have in common.
struct Shared {
    bus: Bus,
    gate: Gate,
    /// Failures by message: the broker's count has outages and restarts in it, and begins anew after a crash.
    failures: Mutex<BTreeMap<u64, u32>>,
    beat: Duration,
}

impl Consumer {
    /// Reads the durable with 64 messages in advance until `stop` is cancelled. Nothing is asked of the
    /// broker before the first [`Consumer::next`].
    pub fn new(bus: Bus, stream: &'static str, durable: &str, stop: CancellationToken) -> Self {
        let gate = Gate::default();
        Self {
            pull: Pull::durable(bus.clone(), stream, durable, BATCH),
            batch: BATCH,
            stop,
            changes: gate.changes(),
            shared: Arc::new(Shared {
                bus,
                gate,
                failures: Mutex::default(),
                beat: streams::ack_wait(stream, durable) / 3,
            }),
        }
    }

    /// Another number of messages in advance; each runs its ack_wait while it waits here.
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// What stops it while a dependency is down; for `/ready`.
    pub fn gate(&self) -> Gate {
        self.shared.gate.clone()
    }

    /// The next delivery; waits for it, outlasts reconnects and outages. `None` once stopped: what was fetched in
    /// advance has then been given back. Cancel safe until stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            self.pull.set_batch(self.shared.gate.leave(self.batch));
            let pulled = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    for message in self.pull.close().await {
                        // A message that can't be given back comes again after its ack_wait.
                        let _ = message.ack_with(AckKind::Nak(None)).await;
                    }
                    return None;
                }
                // The sender is ours, so the channel is open.
                _ = self.changes.changed() => continue,
                () = self.shared.gate.pause_is_over() => continue,
                pulled = self.pull.next() => pulled,
            };
            let delivery = Delivery {
                pulled,
                shared: Arc::clone(&self.shared),
            };
            if self.shared.gate.admits(delivery.seq()) {
                return Some(delivery);
            }
            delivery.told(delivery.nak(self.shared.gate.delay()).await);
        }
    }
}

/// One delivery. [`Delivery::settle`] has it handled and answers for it; who does without answers once, with `ack` or
/// `nak`.
pub struct Delivery {
    pulled: Pulled,
    shared: Arc<Shared>,
}

impl Delivery {
    /// The message's own subject.
    pub fn subject(&self) -> &str {
        &self.pulled.message.subject
    }

    /// The message's headers.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.pulled.message.headers.as_ref()
    }

    /// The message's body.
    pub fn body(&self) -> &Bytes {
        &self.pulled.message.payload
    }

    /// Stream sequence.
    pub fn seq(&self) -> u64 {
        self.pulled.seq
    }

    /// The broker's time of the message.
    pub fn stored_at(&self) -> OffsetDateTime {
        self.pulled.stored_at
    }

    /// 1 for the first delivery; more means that what it asks for may be done already. A broker that crashed counts
    /// from 1 again.
    pub fn delivered(&self) -> u64 {
        self.pulled.delivered
    }

    /// The message as an event; for deliveries of `EVENTS`.
    pub fn event(&self) -> Result<Event, Undecodable> {
        Event::parse(
            self.subject(),
            self.headers().unwrap_or(&HeaderMap::new()),
            self.body().clone(),
            self.seq(),
            self.stored_at(),
        )
    }

    /// How often it has failed here so far.
    pub fn failures(&self) -> u32 {
        self.counts().get(&self.seq()).copied().unwrap_or_default()
    }

    /// Has it handled, which may take as long as it takes, and answers for it. A panic of the handler is a failure.
    /// A lost answer only means one more delivery.
    pub async fn settle(&self, work: impl Future<Output = Result<(), Unhandled>>) -> Settled {
        let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(self.shared.beat) => self.told(self.answer(AckKind::Progress).await),
            }
        };
        // What a panic says may quote what was being worked on: it is on stderr, and nowhere else.
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Unhandled::Failed(
                "panic: a defect of this service".to_owned(),
            ))
        });
        let gate = &self.shared.gate;
        if let Err(Unhandled::Unavailable(outage)) = outcome {
            gate.close(self.seq(), outage);
            self.told(self.nak(gate.delay()).await);
            return Settled::Unavailable;
        }
        gate.went_through(self.seq());
        match outcome {
            Ok(()) => {
                self.counts().remove(&self.seq());
                self.told(self.ack().await);
                Settled::Done
            }
            Err(Unhandled::NotNow { delay, .. }) => {
                self.told(self.nak(delay).await);
                Settled::NotNow
            }
            Err(unhandled) => self.failed(&unhandled).await,
        }
    }

    async fn failed(&self, unhandled: &Unhandled) -> Settled {
        let failures = self.count();
        let (seq, subject, deliveries) = (self.seq(), self.subject(), self.delivered());
        if failures >= ATTEMPTS || matches!(unhandled, Unhandled::Unreadable(_)) {
            tracing::error!(subject, seq, deliveries, failures, reason = %unhandled, "a delivery is given up (octo dlq ls)");
            self.counts().remove(&seq);
            let reason = format!("{subject} {unhandled}");
            self.told(self.give_up(&reason).await);
            return Settled::GivenUp;
        }
        let delay = jittered(FIRST_DELAY * 2_u32.pow(failures - 1));
        tracing::error!(subject, seq, deliveries, failures, reason = %unhandled, "a delivery failed; it is tried again");
        self.told(self.nak(delay).await);
        Settled::Failed
    }

    fn count(&self) -> u32 {
        let mut counts = self.counts();
        let count = counts.entry(self.seq()).or_default();
        *count += 1;
        let count = *count;
        if counts.len() > COUNTED {
            counts.pop_first();
        }
        count
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
        // Nothing panics while it is held.
        self.shared
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Done: never deliver it again. Unless the ack is lost, or the broker crashes before it has written it
    /// down (measured: the last hundred and more): handlers must bear one more delivery.
    pub async fn ack(&self) -> Result<(), AnswerError> {
        self.answer(AckKind::Ack).await
    }

    /// Deliver it again after a delay.
    pub async fn nak(&self, delay: Duration) -> Result<(), AnswerError> {
        self.answer(AckKind::Nak(Some(delay))).await
    }

    /// Never deliver it again. The broker puts the reason into its advisory, which the stream `ADVISORY` keeps; the
    /// client has no word for a reason.
    async fn give_up(&self, reason: &str) -> Result<(), AnswerError> {
        let words: Vec<&str> = reason.split_whitespace().collect();
        let reason: String = words.join(" ").chars().take(REASON_LENGTH).collect();
        let Some(reply) = self.pulled.message.reply.clone() else {
            return Ok(());
        };
        let client = self.shared.bus.client();
        let sent = client.publish(reply, format!("+TERM {reason}").into());
        self.sent(sent.await)
    }

    async fn answer(&self, kind: AckKind) -> Result<(), AnswerError> {
        self.sent(self.pulled.message.ack_with(kind).await)
    }

    fn sent<E: std::fmt::Display>(&self, sent: Result<(), E>) -> Result<(), AnswerError> {
        sent.map_err(|error| AnswerError {
            seq: self.seq(),
            reason: error.to_string(),
        })
    }

    fn told(&self, answered: Result<(), AnswerError>) {
        if let Err(error) = answered {
            tracing::warn!(%error, "an answer was lost; it will be delivered again");
        }
    }
}
