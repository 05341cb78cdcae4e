//! Payloads for tests.

use octollm_events::carrier::{
    Budget, ErrorCode, PlanFailed, PlanFailureClass, Priority, Ruleset, Source, SourceChannel,
    TaskCancelRequested, TaskReceived, TaskRejected, TokenUsage, Verdict, VerdictDecision,
};
use octollm_events::{AppendError, Event, Log, NewEvent, Position};
use serde_json::Map;
use std::time::Duration;
use uuid::Uuid;

/// Longer than anything here takes; a test that waits for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn received() -> TaskReceived {
    TaskReceived {
        goal: "Echo hello".into(),
        constraints: vec![],
        context: Map::new(),
        acceptance_criteria: vec![],
        budget: Budget {
            max_tokens: 10_000,
            max_cost_usd: 1.0,
            max_time_seconds: 300,
            max_retries: 3,
        },
        priority: Priority::Medium,
        metadata: Map::new(),
        verdict: Verdict {
            ruleset: Ruleset {
                version: "1".into(),
                digest: "0".repeat(64),
            },
            decision: VerdictDecision::Allow,
            score: 0,
            findings: vec![],
            redactions: vec![],
            truncated: false,
        },
        source: Source {
            channel: SourceChannel::Bus,
            principal: "bus".into(),
        },
        submission_digest: "0".repeat(64),
        files: None,
        plan: None,
        retry_of: None,
    }
}

pub fn first(task_id: Uuid) -> NewEvent {
    NewEvent::first(task_id, &received()).unwrap()
}

pub fn rejected() -> TaskRejected {
    TaskRejected {
        code: ErrorCode::InvalidRequest,
        message: "the submission breaks the task contract in 1 place".into(),
        reasons: vec![],
        source: received().source,
        retry_after_ms: None,
        submission_digest: None,
        verdict: None,
    }
}

/// An event that may stand anywhere in a task; `key` makes it one of many.
pub fn note(task_id: Uuid, key: &str) -> NewEvent {
    let payload = PlanFailed {
        plan_version: 1,
        code: ErrorCode::LlmUnavailable,
        class: PlanFailureClass::Timeout,
        message: format!("note {key}"),
        retryable: true,
        provider: "test".into(),
        usage: TokenUsage {
            input_tokens: 0,
            output_tokens: 0,
        },
        cost_micro_usd: 0,
        model: None,
    };
    NewEvent::new(&payload, task_id, key).unwrap()
}

pub fn cancel_requested(task_id: Uuid) -> NewEvent {
    let payload = TaskCancelRequested {
        requested_by: "operator".into(),
        reason: None,
    };
    NewEvent::new(&payload, task_id, "").unwrap()
}

/// A task with `count` events.
pub async fn task(log: &Log, count: usize) -> (Uuid, Position) {
    let task_id = Uuid::new_v4();
    let mut position = log
        .append(task_id, &first(task_id), &Position::START)
        .await
        .unwrap();
    for number in 1..count {
        let event = note(task_id, &number.to_string());
        position = log.append(task_id, &event, &position).await.unwrap();
    }
    (task_id, position)
}

/// Appends after whatever stands there, as an arm does: an event of the same id there is its own.
pub async fn append_somehow(
    log: &Log,
    task_id: Uuid,
    event: &NewEvent,
    mut position: Position,
) -> Position {
    loop {
        match log.append(task_id, event, &position).await {
            Ok(position) => return position,
            Err(AppendError::Conflict { .. }) => {
                let later = log.read(task_id, Some(&position)).await.unwrap();
                if let Some(last) = later.last() {
                    position = last.position();
                }
                if later.iter().any(|stored| stored.id == event.id(task_id)) {
                    return position;
                }
            }
            Err(AppendError::Unavailable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Versions 1, 2, 3 …, each id once.
pub fn assert_whole(events: &[Event], count: usize) {
    let versions: Vec<_> = events.iter().map(|event| event.version).collect();
    let expected: Vec<_> = (1..=count as u64).collect();
    assert_eq!(versions, expected);
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), count);
}
