//! Which dispatch an attempt was granted to: a capability is good for one stored event.
//!
//! A token names its attempt, so a second use of it is a second dispatch of the attempt, at another place in the log. What
//! this process has seen is remembered; of a task that it does not know, the log tells. Between executors that share the
//! work a copied dispatch of a pure or idempotent step may slip through once; one with side effects runs into its claim.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use octollm_events::Event;
use octollm_events::carrier::StepDispatched;
use uuid::Uuid;

use super::standing::Attempt;

/// Tasks that are remembered; of an older one the log is asked again.
const REMEMBERED: usize = 4096;

/// The first dispatch of each attempt, by its stream sequence.
#[derive(Debug, Default)]
pub struct Dispatches {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<Uuid, HashMap<Attempt, u64>>,
    order: VecDeque<Uuid>,
}

impl Dispatches {
    /// Whether the task's dispatches so far are remembered.
    pub fn knows(&self, task_id: Uuid) -> bool {
        self.lock().tasks.contains_key(&task_id)
    }

    /// Whether a dispatch of the attempt was handled before, or is known from the log.
    pub fn has_seen(&self, attempt: &Attempt) -> bool {
        let state = self.lock();
        let known = state.tasks.get(&attempt.task_id);
        known.is_some_and(|known| known.contains_key(attempt))
    }

    /// Remembers the dispatches of a task's whole log.
    pub fn learn(&self, task_id: Uuid, events: &[Event]) {
        let dispatched = events.iter().filter_map(|event| {
            let dispatched: StepDispatched = event.decode().ok()?;
            Some((Attempt::of(task_id, &dispatched), event.seq))
        });
        let mut state = self.lock();
        if !state.tasks.contains_key(&task_id) {
            if state.order.len() == REMEMBERED
                && let Some(oldest) = state.order.pop_front()
            {
                state.tasks.remove(&oldest);
            }
            state.order.push_back(task_id);
        }
        let known = state.tasks.entry(task_id).or_default();
        for (attempt, seq) in dispatched {
            let first = known.entry(attempt).or_insert(seq);
            *first = seq.min(*first);
        }
    }

    /// The sequence of the dispatch that the attempt belongs to: this one, unless there was an earlier.
    pub fn first(&self, attempt: &Attempt, seq: u64) -> u64 {
        let mut state = self.lock();
        match state.tasks.get_mut(&attempt.task_id) {
            Some(known) => *known.entry(attempt.clone()).or_insert(seq),
            None => seq,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere can't leave the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task_id: Uuid, number: u64) -> Attempt {
        Attempt {
            task_id,
            plan_version: 1,
            step_id: "a".to_owned(),
            number,
        }
    }

    #[test]
    fn an_attempt_belongs_to_its_first_dispatch() {
        let dispatches = Dispatches::default();
        let task = Uuid::new_v4();
        dispatches.learn(task, &[]);
        assert!(!dispatches.has_seen(&attempt(task, 1)));
        assert_eq!(dispatches.first(&attempt(task, 1), 7), 7);
        assert!(dispatches.has_seen(&attempt(task, 1)));
        assert_eq!(dispatches.first(&attempt(task, 1), 7), 7, "a redelivery");
        assert_eq!(dispatches.first(&attempt(task, 1), 9), 7, "a copy");
        assert_eq!(dispatches.first(&attempt(task, 2), 9), 9, "another attempt");
    }

    #[test]
    fn only_so_many_tasks_are_remembered() {
        let dispatches = Dispatches::default();
        let oldest = Uuid::new_v4();
        dispatches.learn(oldest, &[]);
        dispatches.learn(oldest, &[]);
        for _ in 1..REMEMBERED {
            dispatches.learn(Uuid::new_v4(), &[]);
        }
        assert!(dispatches.knows(oldest));
        dispatches.learn(Uuid::new_v4(), &[]);
        assert!(!dispatches.knows(oldest));
        assert_eq!(dispatches.lock().order.len(), REMEMBERED);
    }
}
