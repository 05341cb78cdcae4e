//! The newest receipt of each task: what its next one names. What this process has read or written it remembers; whether
//! that is all, the versions of the events tell, since other executors write receipts of the same task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use octollm_events::carrier::ReceiptEnvelope;
use octollm_events::{Event, Position};
use serde::Deserialize;
use uuid::Uuid;

use crate::receipt;

/// Tasks that are remembered; of an older one the log is read again.
const REMEMBERED: usize = 4096;

/// What is known of a task's receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The version of the last event that was looked at; there is no gap before it.
    pub until: u64,
    /// Digest of the last receipt up to there.
    pub receipt: Option<String>,
}

/// The newest receipt of each task.
#[derive(Debug, Default)]
pub struct NewestReceipts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<Uuid, Newest>,
    order: VecDeque<Uuid>,
}

impl NewestReceipts {
    /// Takes note of a task's whole log, and gives what it says.
    pub fn learn(&self, task_id: Uuid, events: &[Event]) -> Newest {
        let newest = Newest {
            until: events.last().map_or(0, |event| event.version),
            receipt: last_of(events),
        };
        self.put(task_id, newest.clone());
        newest
    }

    /// What the result that answers `dispatch` and follows `expected` has to name, if nothing can have come in between
    /// that was not looked at: the dispatch itself is no receipt.
    pub fn before(&self, dispatch: &Event, expected: &Position) -> Option<Newest> {
        let known = self.lock().tasks.get(&dispatch.task_id).cloned()?;
        let follows = known.until + 1 == dispatch.version && expected.version == dispatch.version;
        (follows || known.until >= expected.version).then_some(known)
    }

    /// Takes note of a receipt that was stored at this version, right after what was looked at.
    pub fn stored(&self, task_id: Uuid, version: u64, receipt: String) {
        let newest = Newest {
            until: version,
            receipt: Some(receipt),
        };
        self.put(task_id, newest);
    }

    fn put(&self, task_id: Uuid, newest: Newest) {
        let mut state = self.lock();
        match state.tasks.get_mut(&task_id) {
            // Another step of the task may have got further.
            Some(known) if known.until >= newest.until => {}
            Some(known) => *known = newest,
            None => {
                if state.order.len() == REMEMBERED
                    && let Some(oldest) = state.order.pop_front()
                {
                    state.tasks.remove(&oldest);
                }
                state.order.push_back(task_id);
                state.tasks.insert(task_id, newest);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere can't leave the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digest of the last receipt among the events.
pub fn last_of(events: &[Event]) -> Option<String> {
    #[derive(Deserialize)]
    struct Result {
        receipt: Option<ReceiptEnvelope>,
    }
    events
        .iter()
        .rev()
        .filter(|event| matches!(event.kind.as_str(), "step.executed" | "step.failed"))
        .find_map(|event| {
            serde_json::from_slice::<Result>(&event.body)
                .ok()?
                .receipt
                .map(|envelope| receipt::digest(&envelope))
        })
}
