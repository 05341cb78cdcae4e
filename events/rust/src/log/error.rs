//! Why the log could not be written or read.

use super::MAX_MESSAGE_BYTES;
use crate::envelope::{Position, Undecodable};
use async_nats::StatusCode;
use std::time::Duration;
use uuid::Uuid;

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
        /// The last failure; none where there was no connection at all, or where the broker only said: not yet.
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
    /// The broker does not let this service read the log.
    #[error("this service may not read the log ({call}); check the broker's permissions")]
    Forbidden {
        /// The refused request's subject.
        call: String,
    },
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
    pub(super) fn unavailable(reason: &str) -> Self {
        Self::Unavailable {
            reason: reason.to_owned(),
            source: None,
        }
    }

    pub(super) fn refused(status: StatusCode) -> Self {
        Self::unavailable(&format!("a direct get was refused with status {status}"))
    }

    pub(super) fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> Self {
        Self::Unavailable {
            reason: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}
