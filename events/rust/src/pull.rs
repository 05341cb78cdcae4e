//! Continuous pull: one subscription, requests renewed before they run dry, heartbeats watched.

use crate::bus::{Bus, Connections};
use async_nats::jetstream;
use async_nats::{Request, StatusCode, Subject, Subscriber};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

const EXPIRES: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence that says the request or its consumer is lost: two heartbeats and some.
const SILENCE: Duration = Duration::from_secs(5);
const API_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(250);
/// The broker forgets an ordered reader that is gone for this long.
const INACTIVE: Duration = Duration::from_secs(60);

/// One message of a pull.
pub(crate) struct Pulled {
    pub(crate) message: jetstream::Message,
    pub(crate) seq: u64,
    /// Counts deliveries from 1.
    pub(crate) delivered: u64,
    pub(crate) stored_at: OffsetDateTime,
}

/// Messages of one pull consumer, without end.
pub(crate) struct Pull {
    bus: Bus,
    stream: &'static str,
    reader: Reader,
    batch: usize,
    session: Option<Session>,
}

enum Reader {
    /// A durable of `streams.json`.
    Durable(String),
    /// A consumer of our own without acks, made anew after the last sequence seen whenever a message is missed.
    Ordered { filter: Vec<String>, next_seq: u64 },
}

struct Session {
    consumer: String,
    inbox: Subject,
    replies: Subscriber,
    /// Messages that the broker still has leave to send.
    asked: usize,
    /// Of the last message; an ordered reader must see every number.
    consumer_seq: u64,
    heard: Instant,
    connections: watch::Receiver<Connections>,
    /// As of when it began, or was first connected.
    opened: Connections,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the broker is silent")]
    Silent,
    #[error("the connection was lost")]
    Reconnected,
    #[error("the connection was closed")]
    Closed,
    #[error("a message was missed")]
    Missed,
    #[error("the consumer is gone: {0}")]
    Consumer(String),
    #[error("the broker did not take the request: {0}")]
    Request(String),
}

impl Pull {
    pub(crate) fn durable(bus: Bus, stream: &'static str, durable: &str, batch: usize) -> Self {
        Self {
            bus,
            stream,
            reader: Reader::Durable(durable.to_owned()),
            batch,
            session: None,
        }
    }

    pub(crate) fn ordered(
        bus: Bus,
        stream: &'static str,
        filter: &[&str],
        next_seq: u64,
        batch: usize,
    ) -> Self {
        let filter = filter.iter().map(|&subject| subject.to_owned()).collect();
        Self {
            bus,
            stream,
            reader: Reader::Ordered { filter, next_seq },
            batch,
            session: None,
        }
    }

    /// For how many messages the broker may be asked at the moment; what it was asked for before still comes.
    pub(crate) fn set_batch(&mut self, batch: usize) {
        self.batch = batch;
    }

    /// The next message; waits for it as long as it takes. Cancel safe: all progress is in `self`.
    pub(crate) async fn next(&mut self) -> Pulled {
        loop {
            match self.attempt().await {
                Ok(pulled) => return pulled,
                Err(lost) => {
                    // Behind an account the broker goes on serving requests made over a connection that is lost, as
                    // long as somebody listens where they were to be answered, and yet no answer comes through: a
                    // message that is sent there waits for its ack_wait. So that inbox is left before another is used.
                    if let Some(mut session) = self.session.take() {
                        let _ = session.replies.unsubscribe().await;
                    }
                    tracing::warn!(stream = self.stream, reason = %lost, "pull interrupted; trying again");
                    if !matches!(lost, Lost::Reconnected | Lost::Missed) {
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Ends the session and gives back what was received but not yet handed out.
    pub(crate) async fn close(&mut self) -> Vec<jetstream::Message> {
        let Some(mut session) = self.session.take() else {
            return Vec::new();
        };
        let mut rest = Vec::new();
        if session.replies.drain().await.is_ok() {
            let drained = async {
                while let Some(message) = session.replies.next().await {
                    if message.status.is_none() {
                        rest.push(jetstream::Message {
                            message,
                            context: self.bus.jetstream(),
                        });
                    }
                }
            };
            // Without an answer of the broker (connection lost) there is nothing to give back.
            let _ = tokio::time::timeout(API_TIMEOUT, drained).await;
        }
        rest
    }

    async fn attempt(&mut self) -> Result<Pulled, Lost> {
        if self.session.is_none() {
            self.session = Some(self.open().await?);
        }
        let session = self.session.as_mut().expect("it was opened just now");
        loop {
            if session.asked <= self.batch / 2 && session.asked < self.batch {
                let count = self.batch - session.asked;
                request(&self.bus, self.stream, session, count).await?;
                session.asked = self.batch;
                // A reader that was busy for a while has not been listening: silence counts from the request on.
                session.heard = Instant::now();
            }
            let reply = tokio::select! {
                // What has arrived is handed out before its connection is given up.
                biased;
                reply = session.replies.next() => reply.ok_or(Lost::Closed)?,
                _ = session.connections.changed() => {
                    let now = *session.connections.borrow_and_update();
                    let is_first = now.up && now.made == session.opened.made + 1 && !session.opened.up;
                    if is_first && matches!(self.reader, Reader::Durable(_)) {
                        // What was asked for before may have been sent or not; the broker knows of this inbox alone.
                        session.opened = now;
                        session.asked = 0;
                        continue;
                    }
                    return Err(Lost::Reconnected);
                }
                () = tokio::time::sleep_until(session.heard + SILENCE), if session.asked > 0 => return Err(Lost::Silent),
            };
            session.heard = Instant::now();
            match reply.status {
                None => {
                    session.asked = session.asked.saturating_sub(1);
                    let message = jetstream::Message {
                        message: reply,
                        context: self.bus.jetstream(),
                    };
                    let (seq, consumer_seq, delivered, stored_at) = {
                        let info = message
                            .info()
                            .map_err(|error| Lost::Request(error.to_string()))?;
                        (
                            info.stream_sequence,
                            info.consumer_sequence,
                            u64::try_from(info.delivered).unwrap_or(1),
                            info.published,
                        )
                    };
                    if let Reader::Ordered { next_seq, .. } = &mut self.reader {
                        if consumer_seq != session.consumer_seq + 1 {
                            return Err(Lost::Missed);
                        }
                        *next_seq = seq + 1;
                    }
                    session.consumer_seq = consumer_seq;
                    return Ok(Pulled {
                        message,
                        seq,
                        delivered,
                        stored_at,
                    });
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => {
                    let description = reply.description.clone().unwrap_or_default();
                    if status == StatusCode::NO_RESPONDERS || description.contains("Consumer") {
                        return Err(Lost::Consumer(format!(
                            "{} {description}",
                            session.consumer
                        )));
                    }
                    // The request has run out: what it still had to give is asked for anew. A refused one
                    // says no number, and would be refused again at once.
                    let unserved: usize = reply
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get("Nats-Pending-Messages"))
                        .and_then(|count| count.as_str().parse().ok())
                        .ok_or_else(|| Lost::Request(format!("{status} {description}")))?;
                    session.asked = session.asked.saturating_sub(unserved);
                }
            }
        }
    }

    async fn open(&self) -> Result<Session, Lost> {
        let mut connections = self.bus.connections();
        let opened = *connections.borrow_and_update();
        let consumer = match &self.reader {
            Reader::Durable(name) => name.clone(),
            Reader::Ordered { filter, next_seq } => self.create(filter, *next_seq).await?,
        };
        let inbox = Subject::from(self.bus.client().new_inbox());
        let replies = self
            .bus
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| Lost::Request(error.to_string()))?;
        Ok(Session {
            consumer,
            inbox,
            replies,
            asked: 0,
            consumer_seq: 0,
            heard: Instant::now(),
            connections,
            opened,
        })
    }

    /// Makes an ordered reader's consumer.
    async fn create(&self, filter: &[String], next_seq: u64) -> Result<String, Lost> {
        let name = format!("reader-{}", Uuid::new_v4().simple());
        let mut config = json!({
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": next_seq,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE.as_nanos() as u64,
        });
        if !filter.is_empty() {
            config["filter_subjects"] = json!(filter);
        }
        let body = json!({ "stream_name": self.stream, "config": config, "action": "create" });
        let request = Request::new()
            .payload(body.to_string().into())
            .timeout(Some(API_TIMEOUT));
        let subject = format!("$JS.API.CONSUMER.CREATE.{}.{name}", self.stream);
        let answer = self
            .bus
            .client()
            .send_request(subject, request)
            .await
            .map_err(|error| Lost::Request(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&answer.payload)
            .map_err(|error| Lost::Request(error.to_string()))?;
        match answer["error"]["description"].as_str() {
            Some(reason) => Err(Lost::Consumer(reason.to_owned())),
            None => Ok(name),
        }
    }
}

async fn request(bus: &Bus, stream: &str, session: &Session, count: usize) -> Result<(), Lost> {
    let body = json!({
        "batch": count,
        "expires": EXPIRES.as_nanos() as u64,
        "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
    });
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", session.consumer);
    bus.client()
        .publish_with_reply(subject, session.inbox.clone(), body.to_string().into())
        .await
        .map_err(|error| Lost::Request(error.to_string()))
}
