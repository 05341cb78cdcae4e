//! The event log: append with an expectation, read a task, follow everything.

use crate::bus::Bus;
use crate::envelope::{Event, EventHash, NewEvent, Position, Undecodable};
use crate::pull::Pull;
use async_nats::header::HeaderMap;
use async_nats::{Message, Request, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

/// The stream that holds the log.
pub const STREAM: &str = "EVENTS";

/// `max_msg_size` of the stream: headers and body together, bytes.
pub const MAX_MESSAGE_BYTES: usize = 262_144;

const DIRECT_GET: &str = "$JS.API.DIRECT.GET.EVENTS";
const END_OF_BATCH: u16 = 204;

const DEADLINE: Duration = Duration::from_secs(10);
const ATTEMPT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const READ_BATCH: usize = 256;
const FOLLOW_BATCH: usize = 256;

/// Wrong last sequence, on one node and on a replicated stream.
const CONFLICTS: [u64; 2] = [10071, 10164];
/// The stream's, the account's, or the server's store is full.
const FULL: [u64; 4] = [10077, 10047, 10023, 10028];
const MESSAGE_TOO_LARGE: u64 = 10054;

/// Why an event was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody appended in between, or this very event is stored already. Read after `expected`, fold all of it, and decide again.
    #[error("task {task_id}: the log has moved on since sequence {}; read it and decide again", expected.seq)]
    Conflict {
        /// The task.
        task_id: Uuid,
        /// What the append had expected.
        expected: Position,
        /// The broker knows the event's id: it is stored.
        duplicate: bool,
    },
    /// The task's last known event is terminal.
    #[error("task {task_id} has ended; {kind} was not appended")]
    TaskEnded {
        /// The task.
        task_id: Uuid,
        /// What was to be appended.
        kind: String,
    },
    /// The broker does not let this service write this kind of event.
    #[error("{source_name} may not write {subject}; check the broker's permissions")]
    Forbidden {
        /// The service.
        source_name: String,
        /// The refused subject.
        subject: String,
    },
    /// The message would pass the stream's limit.
    #[error("task {task_id}: {kind} needs {size} bytes, {MAX_MESSAGE_BYTES} is the limit")]
    PayloadTooLarge {
        /// The task.
        task_id: Uuid,
        /// What was to be appended.
        kind: String,
        /// Its size with headers, bytes.
        size: usize,
    },
    /// The log has reached its size; an operator must make room.
    #[error("task {task_id}: the log is full: {reason}")]
    Full {
        /// The task.
        task_id: Uuid,
        /// The broker's words.
        reason: String,
    },
    /// The broker refused for another reason; repeating won't help.
    #[error("task {task_id}: the broker refused the event: {reason} ({code})")]
    Refused {
        /// The task.
        task_id: Uuid,
        /// JetStream's error code.
        code: u64,
        /// The broker's words.
        reason: String,
    },
    /// No answer within the deadline. The outcome is unknown; the same append may be repeated.
    #[error("task {task_id}: no answer from the log within {} s; the append may be repeated", deadline.as_secs_f32())]
    Unavailable {
        /// The task.
        task_id: Uuid,
        /// How long it was tried.
        deadline: Duration,
        /// The last failure.
        #[source]
        source: Option<async_nats::client::RequestError>,
    },
}

/// Why a task could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was written.
    #[error("task {task_id}: the chain breaks at sequence {seq}: {reason}")]
    ChainBroken {
        /// The task.
        task_id: Uuid,
        /// Stream sequence of the first event that does not fit.
        seq: u64,
        /// What does not fit.
        reason: String,
    },
    /// A stored message is no event of this version.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The broker does not answer.
    #[error("the log can't be read: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// The failure underneath.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl ReadError {
    fn unavailable(reason: &str) -> Self {
        Self::Unavailable {
            reason: reason.to_owned(),
            source: None,
        }
    }

    fn refused(status: StatusCode) -> Self {
        Self::unavailable(&format!("a direct get was refused with status {status}"))
    }

    fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> Self {
        Self::Unavailable {
            reason: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}

/// The broker's answer to a publish.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// The log as one service sees it; cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    bus: Bus,
    source: String,
    deadline: Duration,
}

impl Log {
    /// `source` is the service's name, written into every event.
    pub fn new(bus: Bus, source: impl Into<String>) -> Self {
        Self {
            bus,
            source: source.into(),
            deadline: DEADLINE,
        }
    }

    /// Bounds an append or a read, retries included (10 s unless told otherwise).
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Appends one event right after `expected` and gives the task's new position.
    ///
    /// While the outcome is unknown the same publish is repeated; the repeat of a stored one ends in
    /// [`AppendError::Conflict`].
    pub async fn append(
        &self,
        task_id: Uuid,
        event: &NewEvent,
        expected: &Position,
    ) -> Result<Position, AppendError> {
        if expected.terminal {
            return Err(AppendError::TaskEnded {
                task_id,
                kind: event.kind().to_owned(),
            });
        }
        let subject = event.subject(task_id);
        let envelope = event.headers(task_id, expected, &self.source, OffsetDateTime::now_utc());
        let hash = EventHash::of(&subject, &envelope, event.body());

        let guards = [
            ("Nats-Msg-Id", event.id(task_id).to_string()),
            (
                "Nats-Expected-Last-Subject-Sequence",
                expected.seq.to_string(),
            ),
            (
                "Nats-Expected-Last-Subject-Sequence-Subject",
                filter(task_id),
            ),
        ];
        let all = || {
            let envelope = envelope.iter().map(|(name, value)| (name.as_str(), value));
            envelope.chain(guards.iter().map(|(name, value)| (*name, value)))
        };
        // `NATS/1.0`, a line for each header, an empty line.
        let size = 12
            + all()
                .map(|(name, value)| name.len() + value.len() + 4)
                .sum::<usize>()
            + event.body().len();
        if size > MAX_MESSAGE_BYTES {
            return Err(AppendError::PayloadTooLarge {
                task_id,
                kind: event.kind().to_owned(),
                size,
            });
        }
        let mut headers = HeaderMap::new();
        for (name, value) in all() {
            headers.insert(name, value.as_str());
        }

        let ack = self
            .publish(task_id, &subject, headers, event.body())
            .await?;
        match ack.error {
            None if !ack.duplicate => Ok(Position {
                seq: ack.seq,
                version: expected.version + 1,
                hash,
                terminal: event.is_terminal(),
            }),
            None => Err(self.conflict(task_id, expected, true)),
            Some(error) if CONFLICTS.contains(&error.err_code) => {
                Err(self.conflict(task_id, expected, false))
            }
            Some(error) if FULL.contains(&error.err_code) => Err(AppendError::Full {
                task_id,
                reason: error.description,
            }),
            Some(error) if error.err_code == MESSAGE_TOO_LARGE => {
                Err(AppendError::PayloadTooLarge {
                    task_id,
                    kind: event.kind().to_owned(),
                    size,
                })
            }
            Some(error) => Err(AppendError::Refused {
                task_id,
                code: error.err_code,
                reason: error.description,
            }),
        }
    }

    fn conflict(&self, task_id: Uuid, expected: &Position, duplicate: bool) -> AppendError {
        AppendError::Conflict {
            task_id,
            expected: *expected,
            duplicate,
        }
    }

    /// Publishes until the broker answers: what times out or finds no responder is repeated unchanged.
    async fn publish(
        &self,
        task_id: Uuid,
        subject: &str,
        headers: HeaderMap,
        body: &Bytes,
    ) -> Result<Ack, AppendError> {
        let deadline = Instant::now() + self.deadline;
        let mut refusals = self.bus.refusals();
        let mut pause = FIRST_PAUSE;
        loop {
            // Bounded by the deadline; without a connection the request times out by itself.
            let _ = tokio::time::timeout_at(deadline, self.bus.connected()).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let request = Request::new()
                .headers(headers.clone())
                .payload(body.clone())
                .timeout(Some(ATTEMPT.min(left)));
            let answer = tokio::select! {
                answer = self.bus.client().send_request(subject.to_owned(), request) => answer,
                () = refusals.of(subject) => {
                    return Err(AppendError::Forbidden {
                        source_name: self.source.clone(),
                        subject: subject.to_owned(),
                    });
                }
            };
            let failure = match answer {
                Ok(message) => match serde_json::from_slice(&message.payload) {
                    Ok(ack) => return Ok(ack),
                    Err(error) => {
                        return Err(AppendError::Refused {
                            task_id,
                            code: 0,
                            reason: format!("its answer is no ack: {error}"),
                        });
                    }
                },
                Err(failure) => failure,
            };
            if Instant::now() + pause >= deadline {
                return Err(AppendError::Unavailable {
                    task_id,
                    deadline: self.deadline,
                    source: Some(failure),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A task's events in order, from its first or after a position; empty for an unknown task. Checks the chain on the way.
    pub async fn read(
        &self,
        task_id: Uuid,
        after: Option<&Position>,
    ) -> Result<Vec<Event>, ReadError> {
        let mut previous = after.copied().unwrap_or(Position::START);
        let mut next = match after {
            Some(position) if position.seq > 0 => Some(position.seq + 1),
            _ => self.first_seq(task_id).await?,
        };
        let mut events = Vec::new();
        while let Some(seq) = next {
            let (messages, more) = self.batch(task_id, seq).await?;
            for message in &messages {
                let event = Event::from_stored(message)?;
                check_link(&previous, &event)?;
                previous = event.position();
                events.push(event);
            }
            next = (more && !messages.is_empty()).then_some(previous.seq + 1);
        }
        Ok(events)
    }

    /// The sequence of the newest event in the log, 0 for an empty one.
    pub async fn last_seq(&self) -> Result<u64, ReadError> {
        let last = self.get(json!({ "last_by_subj": ">" })).await?;
        Ok(last.unwrap_or(0))
    }

    /// Reads the log from `start_seq` on, in order and for ever; `subjects` are wildcards, none means everything.
    pub fn follow(&self, start_seq: u64, subjects: &[&str]) -> Follow {
        Follow(Pull::ordered(
            self.bus.clone(),
            STREAM,
            subjects,
            start_seq.max(1),
            FOLLOW_BATCH,
        ))
    }

    /// Where a task begins: the lower of task.received and task.rejected.
    async fn first_seq(&self, task_id: Uuid) -> Result<Option<u64>, ReadError> {
        let last = |kind| json!({ "last_by_subj": format!("{kind}.{task_id}") });
        let (received, rejected) = tokio::try_join!(
            self.get(last("task.received")),
            self.get(last("task.rejected")),
        )?;
        Ok(received.into_iter().chain(rejected).min())
    }

    /// The sequence of one message by direct get; `None` where there is none.
    async fn get(&self, request: Value) -> Result<Option<u64>, ReadError> {
        let body = Bytes::from(request.to_string());
        let message = self.retried(|| get_once(&self.bus, body.clone())).await?;
        match message.status {
            None => Ok(Some(Event::stored_seq(&message)?)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(ReadError::refused(status)),
        }
    }

    /// Up to a batch of a task's messages from `seq` on, and whether there are more.
    async fn batch(&self, task_id: Uuid, seq: u64) -> Result<(Vec<Message>, bool), ReadError> {
        let body = json!({ "seq": seq, "next_by_subj": filter(task_id), "batch": READ_BATCH });
        let body = Bytes::from(body.to_string());
        self.retried(|| batch_once(&self.bus, body.clone())).await
    }

    /// Repeats a read while the broker does not answer, within the deadline.
    async fn retried<T, R>(&self, read: impl Fn() -> R) -> Result<T, ReadError>
    where
        R: Future<Output = Result<T, ReadError>>,
    {
        let deadline = Instant::now() + self.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            match read().await {
                Err(ReadError::Unavailable { .. }) if Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}

async fn get_once(bus: &Bus, body: Bytes) -> Result<Message, ReadError> {
    let request = Request::new().payload(body).timeout(Some(ATTEMPT));
    let answer = bus.client().send_request(DIRECT_GET, request).await;
    answer.map_err(ReadError::failed)
}

async fn batch_once(bus: &Bus, body: Bytes) -> Result<(Vec<Message>, bool), ReadError> {
    let client = bus.client();
    let inbox = client.new_inbox();
    let mut replies = client
        .subscribe(inbox.clone())
        .await
        .map_err(ReadError::failed)?;
    client
        .publish_with_reply(DIRECT_GET, inbox, body)
        .await
        .map_err(ReadError::failed)?;
    let mut messages = Vec::new();
    loop {
        let reply = tokio::time::timeout(ATTEMPT, replies.next())
            .await
            .map_err(ReadError::failed)?
            .ok_or_else(|| ReadError::unavailable("the connection was closed"))?;
        match reply.status {
            None => messages.push(reply),
            Some(status) if status.as_u16() == END_OF_BATCH => {
                let headers = reply.headers.as_ref();
                let pending = headers.and_then(|it| it.get("Nats-Num-Pending"));
                let more = pending.is_some_and(|count| count.as_str() != "0");
                return Ok((messages, more));
            }
            Some(StatusCode::NOT_FOUND) => return Ok((messages, false)),
            Some(status) => return Err(ReadError::refused(status)),
        }
    }
}

/// The events of the log in order, without end.
pub struct Follow(Pull);

impl Follow {
    /// Waits for the next event; outlasts reconnects and a lost consumer. `Err` is a message that is no
    /// event of this version; the next call goes on behind it. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, Undecodable> {
        let pulled = self.0.next().await;
        let message = pulled.message;
        Event::parse(
            &message.subject,
            message.headers.as_ref().unwrap_or(&HeaderMap::new()),
            message.payload.clone(),
            pulled.seq,
            pulled.stored_at,
        )
    }
}

/// All facts of a task: its consistency boundary.
fn filter(task_id: Uuid) -> String {
    format!("*.*.{task_id}")
}

fn check_link(previous: &Position, event: &Event) -> Result<(), ReadError> {
    let reason = if event.version != previous.version + 1 {
        format!("version {} follows {}", event.version, previous.version)
    } else if event.prev_hash != previous.hash {
        "it names another hash than that of the event before".to_owned()
    } else {
        return Ok(());
    };
    Err(ReadError::ChainBroken {
        task_id: event.task_id,
        seq: event.seq,
        reason,
    })
}
