//! What a task's log says of one attempt of one step.

use octollm_events::Event;
use octollm_events::carrier::StepDispatched;
use serde::Deserialize;
use uuid::Uuid;

/// One attempt of one step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The task.
    pub task_id: Uuid,
    /// Version of the plan.
    pub plan_version: u64,
    /// The step.
    pub step_id: String,
    /// From 1.
    pub number: u64,
}

impl Attempt {
    /// The attempt that a dispatch asks for.
    #[must_use]
    pub fn of(task_id: Uuid, dispatched: &StepDispatched) -> Self {
        Self {
            task_id,
            plan_version: dispatched.plan_version,
            step_id: dispatched.step.id.clone(),
            number: dispatched.attempt,
        }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            task_id,
            plan_version,
            step_id,
            number,
        } = self;
        write!(formatter, "{task_id}.{plan_version}.{step_id}.{number}")
    }
}

/// Whether an attempt still waits for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It does.
    #[default]
    Open,
    /// It does, and somebody has asked for the task to be cancelled.
    CancelRequested,
    /// It does not: it has its result, was given up, or the task has ended.
    Closed,
}

impl Standing {
    /// Folds the events that follow the attempt's dispatch.
    pub fn after(events: &[Event], attempt: &Attempt) -> Self {
        events.iter().fold(Self::Open, |standing, event| {
            standing.evolve(event, attempt)
        })
    }

    fn evolve(self, event: &Event, attempt: &Attempt) -> Self {
        match event.kind.as_str() {
            _ if self == Self::Closed => Self::Closed,
            _ if event.is_terminal() => Self::Closed,
            "step.executed" | "step.failed" if settles(event, attempt) => Self::Closed,
            "task.cancel_requested" => Self::CancelRequested,
            _ => self,
        }
    }
}

/// Whether a result is that of the attempt.
pub fn settles(event: &Event, attempt: &Attempt) -> bool {
    #[derive(Deserialize)]
    struct About {
        plan_version: u64,
        step_id: String,
        attempt: u64,
    }
    // Only who it is about is read: a result of a later schema version settles the attempt just the same.
    serde_json::from_slice::<About>(&event.body).is_ok_and(|about| {
        event.task_id == attempt.task_id
            && about.plan_version == attempt.plan_version
            && about.step_id == attempt.step_id
            && about.attempt == attempt.number
    })
}
