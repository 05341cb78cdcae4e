//! What a submission comes to.

use std::sync::Arc;

use octollm_events::carrier::{Source, SourceChannel, TaskRejected};
use uuid::Uuid;

use crate::contract::Violations;

/// Where a submission came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The way it came.
    pub channel: SourceChannel,
    /// Who submitted.
    pub principal: Arc<str>,
    /// W3C trace context as the caller gave it.
    pub traceparent: Option<String>,
}

impl Origin {
    /// As it stands in events.
    pub fn source(&self) -> Source {
        Source {
            channel: self.channel,
            principal: self.principal.as_ref().to_owned(),
        }
    }
}

/// A task is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The task.
    pub task_id: Uuid,
    /// Stream sequence of its `task.received`.
    pub seq: u64,
    /// The same submission was on record before.
    pub repeated: bool,
}

/// Why a submission did not become a task.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// It breaks the contract; nothing is on record.
    Invalid(Violations),
    /// It is on record as rejected.
    Rejected {
        /// The task.
        task_id: Uuid,
        /// The event.
        rejection: Box<TaskRejected>,
    },
    /// The task exists with another content; nothing was appended.
    Conflict {
        /// The task.
        task_id: Uuid,
    },
    /// Its event would not fit into the log; nothing is on record.
    TooLarge {
        /// The task.
        task_id: Uuid,
        /// Which size passes which limit.
        message: String,
    },
    /// A dependency does not answer. The outcome is unknown; the same submission under the same id may be repeated.
    Unavailable {
        /// The task.
        task_id: Uuid,
        /// What does not answer.
        reason: String,
    },
    /// The broker or the record is not as it should be; repeating won't help.
    Internal {
        /// The task.
        task_id: Uuid,
        /// What is wrong.
        reason: String,
    },
}

impl Refusal {
    /// The task, where the submission had got that far.
    pub const fn task_id(&self) -> Option<Uuid> {
        match self {
            Self::Invalid(_) => None,
            Self::Rejected { task_id, .. }
            | Self::Conflict { task_id }
            | Self::TooLarge { task_id, .. }
            | Self::Unavailable { task_id, .. }
            | Self::Internal { task_id, .. } => Some(*task_id),
        }
    }

    /// The outcome's name in metrics and logs.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Rejected { .. } => "rejected",
            Self::Conflict { .. } => "conflict",
            Self::TooLarge { .. } => "too_large",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "error",
        }
    }
}
