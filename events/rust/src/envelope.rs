//! The envelope: CloudEvents 1.0 in binary mode over NATS headers, ids, and the hash chain.

mod id;
mod new_event;
mod position;

pub use id::{OCTOLLM, event_id, submitted_task_id};
pub use new_event::NewEvent;
pub use position::{EventHash, Position};

use crate::schema::{self, Payload};
use async_nats::HeaderMap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::str::FromStr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Facts after which a task never changes.
pub const TERMINAL: [&str; 4] = [
    "task.completed",
    "task.failed",
    "task.cancelled",
    "task.rejected",
];

/// A stored message that this version can't read.
#[derive(Debug, thiserror::Error)]
#[error("message {seq} on {subject} can't be read: {reason}")]
pub struct Undecodable {
    /// The message's subject.
    pub subject: String,
    /// Its stream sequence, 0 where even that is missing.
    pub seq: u64,
    /// What is wrong.
    pub reason: String,
}

/// RFC 3339 in UTC with milliseconds.
pub fn milliseconds(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let cut = at
        .replace_millisecond(at.millisecond())
        .expect("a millisecond of its own is in range");
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    cut.format(&format).expect("the format has no failing part")
}

/// A stored event.
#[derive(Clone, Debug)]
pub struct Event {
    /// `<entity>.<fact>`.
    pub kind: String,
    /// Version of the schema that its payload follows.
    pub schema_version: u32,
    /// The task.
    pub task_id: Uuid,
    /// Its own id.
    pub id: Uuid,
    /// Stream sequence.
    pub seq: u64,
    /// 1, 2, 3 … within the task.
    pub version: u64,
    /// Hash of the task's event before.
    pub prev_hash: EventHash,
    /// Its own hash.
    pub hash: EventHash,
    /// What it answers.
    pub causation_id: String,
    /// `/octollm/<service>`.
    pub source: String,
    /// The writer's clock, RFC 3339; for people.
    pub time: String,
    /// The broker's clock: the only time that decisions use.
    pub stored_at: OffsetDateTime,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The NATS subject.
    pub subject: String,
    /// `ce-*` and `content-type`.
    pub headers: BTreeMap<String, String>,
    /// The payload as stored.
    pub body: Bytes,
}

impl Event {
    /// Reads the envelope of a stored message; the payload stays untouched until [`Event::decode`].
    pub fn parse(
        subject: &str,
        headers: &HeaderMap,
        body: Bytes,
        seq: u64,
        stored_at: OffsetDateTime,
    ) -> Result<Self, Undecodable> {
        let undecodable = |reason: String| Undecodable {
            subject: subject.to_owned(),
            seq,
            reason,
        };
        let mut kept = BTreeMap::new();
        for (name, values) in headers.iter() {
            let name = name.to_string().to_ascii_lowercase();
            if !(name.starts_with("ce-") || name == "content-type") {
                continue;
            }
            let repeated = match values.as_slice() {
                [value] => kept.insert(name.clone(), value.to_string()).is_some(),
                _ => true,
            };
            if repeated {
                return Err(undecodable(format!("header {name} stands there twice")));
            }
        }
        let header = |name: &str| {
            kept.get(name)
                .ok_or_else(|| undecodable(format!("header {name} is missing")))
        };
        fn parsed<T: FromStr>(text: &str, name: &str) -> Result<T, String> {
            text.parse()
                .map_err(|_| format!("header {name} has the wrong form"))
        }
        let number = |name: &str| parsed::<u64>(header(name)?, name).map_err(undecodable);

        let (kind, task) = subject
            .rsplit_once('.')
            .ok_or_else(|| undecodable("the subject has too few tokens".to_owned()))?;
        let task_id: Uuid = parsed(header("ce-subject")?, "ce-subject").map_err(undecodable)?;
        let schema_version = header("ce-type")?
            .strip_prefix("octollm.")
            .and_then(|rest| rest.strip_prefix(kind))
            .and_then(|rest| rest.strip_prefix(".v"))
            .and_then(|version| version.parse().ok());
        let Some(schema_version) = schema_version.filter(|_| task_id.to_string() == task) else {
            return Err(undecodable("subject and headers disagree".to_owned()));
        };
        Ok(Self {
            kind: kind.to_owned(),
            schema_version,
            task_id,
            id: parsed(header("ce-id")?, "ce-id").map_err(undecodable)?,
            seq,
            version: number("ce-taskversion")?,
            prev_hash: parsed(header("ce-prevhash")?, "ce-prevhash").map_err(undecodable)?,
            hash: EventHash::of(subject, &kept, &body),
            causation_id: header("ce-causationid")?.clone(),
            source: header("ce-source")?.clone(),
            time: header("ce-time")?.clone(),
            stored_at,
            traceparent: kept.get("ce-traceparent").cloned(),
            subject: subject.to_owned(),
            headers: kept,
            body,
        })
    }

    /// Reads a direct get's answer or a republished message, which name subject, sequence and time in headers.
    pub fn from_stored(message: &async_nats::Message) -> Result<Self, Undecodable> {
        let seq = Self::stored_seq(message)?;
        let undecodable = |reason: &str| Undecodable {
            subject: message.subject.to_string(),
            seq,
            reason: reason.to_owned(),
        };
        let subject = stored_header(message, "Nats-Subject")
            .ok_or_else(|| undecodable("header Nats-Subject is missing"))?;
        let stored_at = stored_header(message, "Nats-Time-Stamp")
            .and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok())
            .ok_or_else(|| undecodable("header Nats-Time-Stamp is missing or no time"))?;
        let headers = message.headers.clone().unwrap_or_default();
        Self::parse(subject, &headers, message.payload.clone(), seq, stored_at)
    }

    /// The stream sequence of such a message.
    pub(crate) fn stored_seq(message: &async_nats::Message) -> Result<u64, Undecodable> {
        stored_header(message, "Nats-Sequence")
            .and_then(|seq| seq.parse().ok())
            .ok_or_else(|| Undecodable {
                subject: message.subject.to_string(),
                seq: 0,
                reason: "header Nats-Sequence is missing or no number".to_owned(),
            })
    }

    /// The payload as its carrier type, checked against its schema.
    pub fn decode<T: Payload>(&self) -> Result<T, Undecodable> {
        let undecodable = |reason: String| Undecodable {
            subject: self.subject.clone(),
            seq: self.seq,
            reason,
        };
        if (self.kind.as_str(), self.schema_version) != (T::KIND, T::VERSION) {
            return Err(undecodable(format!(
                "it is {} v{}, not {} v{}",
                self.kind,
                self.schema_version,
                T::KIND,
                T::VERSION
            )));
        }
        schema::decode(&self.body).map_err(|violation| undecodable(violation.to_string()))
    }

    /// Nothing may follow.
    pub fn is_terminal(&self) -> bool {
        TERMINAL.contains(&self.kind.as_str())
    }

    /// The task's log as of this event.
    pub fn position(&self) -> Position {
        Position {
            seq: self.seq,
            version: self.version,
            hash: self.hash,
            terminal: self.is_terminal(),
        }
    }
}

fn stored_header<'a>(message: &'a async_nats::Message, name: &'static str) -> Option<&'a str> {
    let value = message.headers.as_ref()?.get(name)?;
    Some(value.as_str())
}
