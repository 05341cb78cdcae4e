//! Durable consumers: at-least-once deliveries that a service answers for.

use crate::bus::Bus;
use crate::envelope::{Event, Undecodable};
use crate::pull::{Pull, Pulled};
use async_nats::HeaderMap;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const BATCH: usize = 64;

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
    stop: CancellationToken,
}

impl Consumer {
    /// Reads the durable with 64 messages in advance until `stop` is cancelled. Nothing is asked of the
    /// broker before the first [`Consumer::next`].
    pub fn new(bus: Bus, stream: &'static str, durable: &str, stop: CancellationToken) -> Self {
        Self {
            pull: Pull::durable(bus, stream, durable, BATCH),
            stop,
        }
    }

    /// Another number of messages in advance; each runs its ack_wait while it waits here.
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.pull.set_batch(batch);
        self
    }

    /// The next delivery; waits for it, outlasts reconnects. `None` once stopped: what was fetched in
    /// advance has then been given back. Cancel safe until stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                for message in self.pull.close().await {
                    // A message that can't be given back comes again after its ack_wait.
                    let _ = message.ack_with(AckKind::Nak(None)).await;
                }
                None
            }
            pulled = self.pull.next() => Some(Delivery(pulled)),
        }
    }
}

/// One delivery. Answer it once with `ack`, `nak` or `term`; `progress` buys another ack_wait.
pub struct Delivery(Pulled);

impl Delivery {
    /// The message's own subject.
    pub fn subject(&self) -> &str {
        &self.0.message.subject
    }

    /// The message's headers.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.0.message.headers.as_ref()
    }

    /// The message's body.
    pub fn body(&self) -> &Bytes {
        &self.0.message.payload
    }

    /// Stream sequence.
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// The broker's time of the message.
    pub fn stored_at(&self) -> OffsetDateTime {
        self.0.stored_at
    }

    /// 1 for the first delivery; more means that what it asks for may be done already.
    pub fn delivered(&self) -> u64 {
        self.0.delivered
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

    /// Done: never deliver it again. Unless the ack is lost, or the broker crashes before it has written it
    /// down (measured: the last hundred and more): handlers must bear one more delivery.
    pub async fn ack(&self) -> Result<(), AnswerError> {
        self.answer(AckKind::Ack).await
    }

    /// Deliver it again after a delay.
    pub async fn nak(&self, delay: Duration) -> Result<(), AnswerError> {
        self.answer(AckKind::Nak(Some(delay))).await
    }

    /// Still at work: ack_wait starts anew.
    pub async fn progress(&self) -> Result<(), AnswerError> {
        self.answer(AckKind::Progress).await
    }

    /// Never deliver it again, though nothing was done.
    pub async fn term(&self) -> Result<(), AnswerError> {
        self.answer(AckKind::Term).await
    }

    async fn answer(&self, kind: AckKind) -> Result<(), AnswerError> {
        let sent = self.0.message.ack_with(kind).await;
        sent.map_err(|error| AnswerError {
            seq: self.seq(),
            reason: error.to_string(),
        })
    }
}
