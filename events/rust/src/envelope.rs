//! The envelope: CloudEvents 1.0 in binary mode over NATS headers, ids, and the hash chain.

use crate::schema::{self, Fact, Payload, SchemaViolation};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Namespace of ids that no task precedes: UUIDv5(DNS namespace, `octollm`).
pub const OCTOLLM: Uuid = uuid::uuid!("8047c669-ce86-5034-a476-38d2fffd93e4");

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

/// SHA-256 of a stored event: what the task's next event names as `ce-prevhash`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventHash([u8; 32]);

impl EventHash {
    /// What a task's first event names: 64 zeros.
    pub const NONE: Self = Self([0; 32]);

    /// Over the subject, every `ce-*` header in byte order of its name, and the body.
    pub fn of(subject: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(subject);
        digest.update("\n");
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
            digest.update(name);
            digest.update(":");
            digest.update(value);
            digest.update("\n");
        }
        digest.update("\n");
        digest.update(body);
        Self(digest.finalize().into())
    }
}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventHash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Where a task's log stands: what an append expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Stream sequence of the task's last event, 0 for none.
    pub seq: u64,
    /// Its `ce-taskversion`, 0 for none.
    pub version: u64,
    /// Its hash.
    pub hash: EventHash,
    /// It is terminal: nothing may follow.
    pub terminal: bool,
}

impl Position {
    /// Of a task that has no event yet.
    pub const START: Self = Self {
        seq: 0,
        version: 0,
        hash: EventHash::NONE,
        terminal: false,
    };
}

/// The deterministic id of a decision. `key` says what it is about (`<plan version>/<step>/<attempt>`, …), never a position.
pub fn event_id(task_id: Uuid, causation_id: Uuid, kind: &str, key: &str) -> Uuid {
    let name = format!("{causation_id}/{kind}/{key}");
    Uuid::new_v5(&task_id, name.as_bytes())
}

/// The id of a raw `task.submit` that names none. `created`: the creation time of `COMMANDS` as the broker
/// writes it; `seq`, `stored_at`: the message's.
pub fn submitted_task_id(created: &str, seq: u64, stored_at: OffsetDateTime) -> Uuid {
    let name = format!("{created}/{seq}/{}", stored_at.unix_timestamp_nanos());
    Uuid::new_v5(&OCTOLLM, name.as_bytes())
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    kind: String,
    schema_version: u32,
    key: String,
    causation_id: Uuid,
    traceparent: Option<String>,
    body: Bytes,
}

impl NewEvent {
    /// A task's first event: its cause is the task itself, its key is empty.
    pub fn first<T: Fact>(task_id: Uuid, payload: &T) -> Result<Self, SchemaViolation> {
        Self::new(payload, task_id, "")
    }

    /// The answer to an event; carries its trace on.
    pub fn answering<T: Fact>(
        cause: &Event,
        payload: &T,
        key: impl Into<String>,
    ) -> Result<Self, SchemaViolation> {
        let mut event = Self::new(payload, cause.id, key)?;
        event.traceparent = cause.traceparent.clone();
        Ok(event)
    }

    /// An event with any cause; the payload is checked against its schema.
    pub fn new<T: Fact>(
        payload: &T,
        causation_id: Uuid,
        key: impl Into<String>,
    ) -> Result<Self, SchemaViolation> {
        Ok(Self {
            kind: T::KIND.to_owned(),
            schema_version: T::VERSION,
            key: key.into(),
            causation_id,
            traceparent: None,
            body: schema::encode(payload)?.into(),
        })
    }

    /// An event from plain JSON, for callers that learn the kind at run time; checked against its schema.
    pub fn from_json(
        kind: &str,
        payload: &Value,
        causation_id: Uuid,
        key: impl Into<String>,
    ) -> Result<Self, SchemaViolation> {
        let schema_version = schema::fact_version(kind).ok_or_else(|| SchemaViolation {
            kind: kind.to_owned(),
            errors: vec![(String::new(), "no such kind of event".to_owned())],
        })?;
        schema::validate(kind, payload)?;
        Ok(Self {
            kind: kind.to_owned(),
            schema_version,
            key: key.into(),
            causation_id,
            traceparent: None,
            body: payload.to_string().into(),
        })
    }

    /// Continues a W3C trace; an ill-formed `traceparent` is ignored, as the standard asks.
    pub fn with_traceparent(mut self, traceparent: Option<&str>) -> Self {
        self.traceparent = traceparent
            .filter(|text| is_traceparent(text))
            .map(str::to_owned);
        self
    }

    /// `<entity>.<fact>`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The payload as it will be stored.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The id it gets in this task.
    pub fn id(&self, task_id: Uuid) -> Uuid {
        event_id(task_id, self.causation_id, &self.kind, &self.key)
    }

    pub(crate) fn subject(&self, task_id: Uuid) -> String {
        format!("{}.{task_id}", self.kind)
    }

    pub(crate) fn is_terminal(&self) -> bool {
        TERMINAL.contains(&self.kind.as_str())
    }

    /// The headers of this event as the one after `expected`, `Nats-Msg-Id` not among them.
    pub(crate) fn headers(
        &self,
        task_id: Uuid,
        expected: &Position,
        source: &str,
        now: OffsetDateTime,
    ) -> BTreeMap<String, String> {
        let version = expected.version + 1;
        let mut headers: BTreeMap<String, String> = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", self.id(task_id).to_string()),
            (
                "ce-type",
                format!("octollm.{}.v{}", self.kind, self.schema_version),
            ),
            ("ce-source", format!("/octollm/{source}")),
            ("ce-time", milliseconds(now)),
            ("ce-subject", task_id.to_string()),
            ("content-type", "application/json".to_owned()),
            ("ce-causationid", self.causation_id.to_string()),
            ("ce-taskversion", version.to_string()),
            ("ce-prevhash", expected.hash.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(traceparent) = &self.traceparent {
            headers.insert("ce-traceparent".to_owned(), traceparent.clone());
        }
        headers
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case (W3C Trace Context).
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.len() == 4
        && parts.iter().map(|part| part.len()).eq([2, 32, 16, 2])
        && text
            .bytes()
            .all(|byte| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f'))
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
