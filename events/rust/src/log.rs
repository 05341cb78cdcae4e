//! The event log: append with an expectation, read a task, follow everything.

mod error;
mod read;

pub use error::{AppendError, ReadError};

use crate::bus::Bus;
use crate::envelope::{Event, EventHash, NewEvent, Position, Undecodable};
use crate::publish::PublishError;
use crate::pull::Pull;
use async_nats::header::HeaderMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// The stream that holds the log.
pub const STREAM: &str = "EVENTS";

/// `max_msg_size` of the stream: headers and body together, bytes.
pub const MAX_MESSAGE_BYTES: usize = 262_144;

const DEADLINE: Duration = Duration::from_secs(10);
const FOLLOW_BATCH: usize = 256;

/// The stream's, the account's, or the server's store is full.
const FULL: [u64; 4] = [10077, 10047, 10023, 10028];
const MESSAGE_TOO_LARGE: u64 = 10054;

/// The log as one service sees it; cheap to clone.
///
/// ```no_run
/// # async fn example(task_id: uuid::Uuid) -> Result<(), Box<dyn std::error::Error>> {
/// use octollm_events::carrier::TaskCancelRequested;
/// use octollm_events::{Bus, Log, NewEvent, Position, config};
///
/// let bus = Bus::connect(&config::load("nats")?, "orchestrator").await?;
/// let log = Log::new(bus, "orchestrator");
/// let events = log.read(task_id, None).await?;
/// let expected = events.last().map_or(Position::START, |event| event.position());
/// let payload = TaskCancelRequested { requested_by: "operator".into(), reason: None };
/// let position = log.append(task_id, &NewEvent::new(&payload, task_id, "")?, &expected).await?;
/// assert_eq!(position.version, expected.version + 1);
/// # Ok(())
/// # }
/// ```
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
            .bus
            .publish(&subject, headers, event.body(), self.deadline)
            .await
            .map_err(|error| self.unanswered(task_id, error))?;
        match ack.error {
            None if !ack.duplicate => Ok(Position {
                seq: ack.seq,
                version: expected.version + 1,
                hash,
                terminal: event.is_terminal(),
            }),
            None => Err(self.conflict(task_id, expected, true)),
            Some(error) if error.is_conflict() => Err(self.conflict(task_id, expected, false)),
            Some(error) if FULL.contains(&error.code) => Err(AppendError::Full {
                task_id,
                reason: error.reason,
            }),
            Some(error) if error.code == MESSAGE_TOO_LARGE => Err(AppendError::PayloadTooLarge {
                task_id,
                kind: event.kind().to_owned(),
                size,
            }),
            Some(error) => Err(AppendError::Refused {
                task_id,
                code: error.code,
                reason: error.reason,
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

    fn unanswered(&self, task_id: Uuid, error: PublishError) -> AppendError {
        match error {
            PublishError::Forbidden { subject } => AppendError::Forbidden {
                source_name: self.source.clone(),
                subject,
            },
            PublishError::NoAck { source, .. } => AppendError::Refused {
                task_id,
                code: 0,
                reason: format!("its answer is no ack: {source}"),
            },
            PublishError::Unavailable {
                deadline, source, ..
            } => AppendError::Unavailable {
                task_id,
                deadline,
                source,
            },
        }
    }

    /// Reads the log from `start_seq` on, in order and for ever; `subjects` are wildcards, none means everything.
    /// It makes a consumer, which no service may do where accounts are apart (`events/README.md`, Who may do what).
    pub fn follow(&self, start_seq: u64, subjects: &[&str]) -> Follow {
        Follow(Pull::ordered(
            self.bus.clone(),
            STREAM,
            subjects,
            start_seq.max(1),
            FOLLOW_BATCH,
        ))
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
