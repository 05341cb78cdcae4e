//! The artifact store, as far as reflex needs it: keeping a bundle of initial files.

use std::time::Duration;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectStore};
use octollm_events::Bus;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::files::Bundle;

const BUCKET: &str = "ARTIFACTS";
const DEADLINE: Duration = Duration::from_secs(10);

/// The store does not answer; what was to be kept may or may not be.
#[derive(Debug, thiserror::Error)]
#[error("the artifact store can't be used: {0}")]
pub struct ArtifactError(String);

impl ArtifactError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What keeping a bundle came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there now.
    Stored,
    /// It was there: objects are named by their digest.
    Present,
}

/// The object store `ARTIFACTS`.
pub struct Artifacts {
    bus: Bus,
    store: OnceCell<ObjectStore>,
}

impl Artifacts {
    /// Asks nothing of the broker yet.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            store: OnceCell::new(),
        }
    }

    /// Stores the bundle under its digest, once. Returns when the broker has it; safe to repeat.
    pub async fn keep(&self, bundle: &Bundle) -> Result<Kept, ArtifactError> {
        let outcome = timeout(DEADLINE, self.keep_unbounded(bundle)).await;
        outcome.map_err(|_| ArtifactError(format!("no answer within {} s", DEADLINE.as_secs())))?
    }

    async fn keep_unbounded(&self, bundle: &Bundle) -> Result<Kept, ArtifactError> {
        let store = self
            .store
            .get_or_try_init(|| async { self.bus.jetstream().get_object_store(BUCKET).await });
        let store = store.await.map_err(ArtifactError::of)?;
        let name = bundle.reference.artifact.as_str();
        match store.info(name).await {
            // Storing it again would take the old chunks away from a reader.
            Ok(info) if !info.deleted && info.size == bundle.bytes.len() => {
                return Ok(Kept::Present);
            }
            Ok(_) => {}
            Err(error) if error.kind() == InfoErrorKind::NotFound => {}
            Err(error) => return Err(ArtifactError::of(error)),
        }
        store
            .put(name, &mut bundle.bytes.as_slice())
            .await
            .map_err(ArtifactError::of)?;
        Ok(Kept::Stored)
    }
}
