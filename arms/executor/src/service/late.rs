//! Results that came too late for the log: what a step has done is not lost because nobody waits for it.

use std::sync::Arc;

use octollm_events::envelope::milliseconds;
use octollm_events::{Event, NewEvent};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::artifacts::{Artifacts, StoreError};
use super::standing::Attempt;

/// The result was not kept, as far as this side can tell.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The result is no JSON.
    #[error("the result can't be read: {0}")]
    Result(#[from] serde_json::Error),
}

/// The part of the object store `ARTIFACTS` that holds late results.
///
/// A late result is the object `late/<task>/<plan version>/<step>/<attempt>/<SHA-256 of its content>`, never replaced. Its
/// content is JSON: the event that would have been appended (`kind`, `id`, `payload`), the `dispatch` that it answers,
/// and the times at which that was `dispatched_at` and the result `came_at`.
pub struct LateResults {
    artifacts: Arc<Artifacts>,
}

impl LateResults {
    /// Keeps them there.
    #[must_use]
    pub fn new(artifacts: Arc<Artifacts>) -> Self {
        Self { artifacts }
    }

    /// Keeps a late result, its receipt in it; gives the object's name.
    ///
    /// # Errors
    /// The store does not take it in time.
    pub async fn keep(
        &self,
        attempt: &Attempt,
        dispatch: &Event,
        result: &NewEvent,
    ) -> Result<String, KeepError> {
        let payload: Value = serde_json::from_slice(result.body())?;
        let kept = json!({
            "task_id": attempt.task_id,
            "dispatch": { "id": dispatch.id, "seq": dispatch.seq },
            "dispatched_at": milliseconds(dispatch.stored_at),
            "came_at": milliseconds(OffsetDateTime::now_utc()),
            "kind": result.kind(),
            "id": result.id(attempt.task_id),
            "payload": payload,
        })
        .to_string();
        let Attempt {
            task_id,
            plan_version,
            step_id,
            number,
        } = attempt;
        let digest = hex::encode(Sha256::digest(&kept));
        let name = format!("late/{task_id}/{plan_version}/{step_id}/{number}/{digest}");
        self.artifacts.put(&name, kept.as_bytes()).await?;
        Ok(name)
    }
}
