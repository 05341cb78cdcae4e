//! Results that came too late for the log: what a step has done is not lost because nobody waits for it.

use std::time::Duration;

use async_nats::jetstream::object_store::ObjectStore;
use octollm_events::envelope::milliseconds;
use octollm_events::{Bus, Event, NewEvent};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::standing::Attempt;

const BUCKET: &str = "ARTIFACTS";
/// How long keeping one may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The result was not kept, as far as this side can tell.
#[derive(Debug, thiserror::Error)]
#[error("the artifact store can't be used: {0}")]
pub struct KeepError(String);

impl KeepError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The part of the object store `ARTIFACTS` that holds late results.
///
/// A late result is the object `late/<task>/<plan version>/<step>/<attempt>/<SHA-256 of its content>`, never replaced. Its
/// content is JSON: the event that would have been appended (`kind`, `id`, `payload`), the `dispatch` that it answers,
/// and the times at which that was `dispatched_at` and the result `came_at`.
pub struct LateResults {
    bus: Bus,
    store: OnceCell<ObjectStore>,
}

impl LateResults {
    /// Asks nothing of the broker yet.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            store: OnceCell::new(),
        }
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
        let payload: Value = serde_json::from_slice(result.body()).map_err(KeepError::of)?;
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
        timeout(DEADLINE, self.put(&name, kept.as_bytes()))
            .await
            .map_err(|_| KeepError(format!("no answer within {} s", DEADLINE.as_secs())))??;
        Ok(name)
    }

    async fn put(&self, name: &str, mut content: &[u8]) -> Result<(), KeepError> {
        let store = self
            .store
            .get_or_try_init(|| async { self.bus.jetstream().get_object_store(BUCKET).await });
        let store = store.await.map_err(KeepError::of)?;
        store.put(name, &mut content).await.map_err(KeepError::of)?;
        Ok(())
    }
}
