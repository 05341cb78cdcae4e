//! Cancels: whoever settles a running attempt from outside has it killed here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use octollm_events::{Bus, Event};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::standing::{Attempt, settles};

/// The republished events that end attempts: stored ones only, never a publish that the log refused.
const SUBJECTS: [&str; 5] = [
    "log.task.cancel_requested.*",
    "log.step.failed.*",
    "log.task.failed.*",
    "log.task.completed.*",
    "log.task.cancelled.*",
];
/// Cancelled tasks that are remembered for a dispatch that is still on its way.
const REMEMBERED: usize = 4096;

/// The attempts that run in this process.
#[derive(Debug, Default)]
pub struct Running {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attempts: HashMap<Attempt, CancellationToken>,
    cancelled: VecDeque<Uuid>,
}

impl Running {
    /// Enters an attempt; none if it runs here already. The token is cancelled when the attempt is to end.
    pub fn enter(&self, attempt: &Attempt) -> Option<CancellationToken> {
        let mut state = self.lock();
        if state.attempts.contains_key(attempt) {
            return None;
        }
        let token = CancellationToken::new();
        if state.cancelled.contains(&attempt.task_id) {
            token.cancel();
        }
        state.attempts.insert(attempt.clone(), token.clone());
        Some(token)
    }

    /// Removes an attempt that has ended.
    pub fn leave(&self, attempt: &Attempt) {
        self.lock().attempts.remove(attempt);
    }

    /// Cancels what the event settles.
    pub fn observe(&self, event: &Event) {
        let mut state = self.lock();
        let about_step = event.kind == "step.failed";
        // Nothing is on its way to a task that has all it asked for.
        if !about_step && event.kind != "task.completed" {
            if state.cancelled.len() == REMEMBERED {
                state.cancelled.pop_front();
            }
            state.cancelled.push_back(event.task_id);
        }
        for (attempt, token) in &state.attempts {
            if attempt.task_id == event.task_id && (!about_step || settles(event, attempt)) {
                token.cancel();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere can't leave the maps half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens until `stop`. What is missed while the connection is down, the workers find when they look at the log.
///
/// # Errors
/// The client refuses the subscription.
pub async fn listen(
    bus: Bus,
    observe: impl Fn(&Event),
    stop: CancellationToken,
) -> Result<(), async_nats::SubscribeError> {
    let mut subscriptions = Vec::new();
    for subject in SUBJECTS {
        subscriptions.push(bus.client().subscribe(subject).await?);
    }
    let mut messages = futures::stream::select_all(subscriptions);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            message = messages.next() => message,
        };
        match message.map(|message| Event::from_stored(&message)) {
            Some(Ok(event)) => observe(&event),
            Some(Err(error)) => {
                tracing::warn!(%error, "an event that may be a cancel can't be read")
            }
            None => return Ok(()),
        }
    }
}
