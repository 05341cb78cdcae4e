//! Events that are to be appended.

use super::{Event, Position, TERMINAL, event_id, milliseconds};
use crate::schema::{self, Fact, SchemaViolation};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

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
        let event = Self::new(payload, cause.id, key)?;
        Ok(event.with_traceparent(cause.traceparent.as_deref()))
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

    /// The event with one more member, the last of its payload: what stands before it stays as it is, byte by byte.
    /// Checked against its schema.
    pub fn with_member<T: Serialize>(
        mut self,
        name: &str,
        value: &T,
    ) -> Result<Self, SchemaViolation> {
        let violation = || SchemaViolation {
            kind: self.kind.clone(),
            errors: vec![(
                format!("/{name}"),
                "must be representable as JSON".to_owned(),
            )],
        };
        let (Some(rest), Ok(value)) = (self.body.strip_suffix(b"}"), serde_json::to_vec(value))
        else {
            return Err(violation());
        };
        let name = Value::from(name).to_string();
        let body = [rest, b",", name.as_bytes(), b":", &value, b"}"].concat();
        let payload = serde_json::from_slice(&body).map_err(|_| violation())?;
        schema::validate(&self.kind, &payload)?;
        self.body = body.into();
        Ok(self)
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
