//! The workspaces of tasks: the initial files, and the snapshots that steps have made of them.
//!
//! A snapshot is the object `workspace/<task>/<digest>`: the canonical archive, compressed. It is stored before the event
//! that names it is appended, and never replaced, so what the log names is there. The trees used last are kept here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use octollm_events::carrier::{StepDispatched, StepExecuted};
use octollm_events::{Bus, Event};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use uuid::Uuid;

use super::artifacts::{Artifacts, StoreError};
use super::files;
use super::metrics::Metrics;
use crate::workspace::{ArchiveError, Caps, InvalidEntries, Tree};

/// What the trees kept here may take together, bytes.
const KEPT_BYTES: u64 = 256 << 20;
/// What a node takes beside its content, about, bytes.
const NODE_BYTES: u64 = 256;
/// Trees that are kept, about.
const KEPT: usize = 1024;
/// First part of a snapshot's name.
const PREFIX: &str = "workspace";

/// Why a workspace can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It may be there later.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
    /// What is stored is not what the log says, or is not there. The code is `INTERNAL_ERROR`.
    #[error("{0}")]
    Corrupt(String),
    /// The initial files contradict each other. The code is `INVALID_REQUEST`.
    #[error(transparent)]
    Invalid(#[from] InvalidEntries),
}

/// A workspace and its name.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its digest; none for the files of the task's first event.
    pub digest: Option<String>,
    /// What is in it.
    pub tree: Arc<Tree>,
}

/// The workspaces of all tasks.
pub struct Snapshots {
    artifacts: Arc<Artifacts>,
    caps: Caps,
    metrics: Metrics,
    kept: Cache<(Uuid, Option<String>), Arc<Tree>, Space>,
    /// Names of what was stored here, until it is taken out of the store again.
    stored: Mutex<HashMap<Uuid, BTreeSet<String>>>,
}

#[derive(Clone)]
struct Space;

impl Weighter<(Uuid, Option<String>), Arc<Tree>> for Space {
    fn weight(&self, _: &(Uuid, Option<String>), tree: &Arc<Tree>) -> u64 {
        tree.space() + (tree.len() as u64 + 1) * NODE_BYTES
    }
}

impl Snapshots {
    /// Asks nothing of the broker yet.
    #[must_use]
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        // One shard: of several none could hold a large tree.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(KEPT)
            .weight_capacity(KEPT_BYTES)
            .build()
            .expect("both capacities are set");
        Self {
            artifacts: Arc::new(Artifacts::new(bus)),
            caps: Caps::default(),
            metrics,
            kept: Cache::with_options(
                options,
                Space,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            stored: Mutex::default(),
        }
    }

    /// The store behind.
    #[must_use]
    pub fn artifacts(&self) -> &Arc<Artifacts> {
        &self.artifacts
    }

    /// The workspace of this digest, if it is kept here or has one; without a digest there is no other place to look.
    ///
    /// # Errors
    /// [`SnapshotError`] says whether trying again helps.
    pub async fn get(
        &self,
        task_id: Uuid,
        digest: Option<&str>,
    ) -> Result<Option<Arc<Tree>>, SnapshotError> {
        let key = (task_id, digest.map(str::to_owned));
        if let Some(tree) = self.kept.get(&key) {
            return Ok(Some(tree));
        }
        let Some(digest) = digest else {
            return Ok(None);
        };
        let name = name(task_id, digest);
        let most = self.caps.archive_bytes();
        let snapshot = self.artifacts.get(&name, most).await?;
        let missing = || SnapshotError::Corrupt(format!("{name} is not in the artifact store"));
        let snapshot = snapshot.ok_or_else(missing)?;
        self.metrics.snapshots_read.inc();
        let (caps, expected) = (self.caps, digest.to_owned());
        let read =
            blocking(move || Tree::from_snapshot(&*snapshot, Some(&expected), &caps)).await?;
        let tree =
            read.map_err(|error: ArchiveError| SnapshotError::Corrupt(format!("{name}: {error}")))?;
        let tree = Arc::new(tree);
        self.kept.insert(key, Arc::clone(&tree));
        Ok(Some(tree))
    }

    /// The files that the task was submitted with, as its log begins. What has no time of its own has that of the task's
    /// first event, so that they are the same tree wherever they are fetched.
    ///
    /// # Errors
    /// [`SnapshotError`] says whether trying again helps.
    pub async fn initial(&self, task_id: Uuid, log: &[Event]) -> Result<Arc<Tree>, SnapshotError> {
        let (entries, received) = files::fetch(&self.artifacts, log).await?;
        let tree = Arc::new(Tree::default().with_entries(&entries, received)?);
        self.kept.insert((task_id, None), Arc::clone(&tree));
        Ok(tree)
    }

    /// Stores a snapshot, unless it is there; gives its digest.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn put(&self, task_id: Uuid, tree: &Arc<Tree>) -> Result<String, SnapshotError> {
        let hashed = Arc::clone(tree);
        let digest = blocking(move || hashed.digest()).await?;
        let key = (task_id, Some(digest.clone()));
        let name = name(task_id, &digest);
        if self.kept.get(&key).is_none() && !self.artifacts.has(&name).await? {
            let packed = Arc::clone(tree);
            let snapshot = blocking(move || packed.to_snapshot()).await?;
            self.artifacts.put(&name, &snapshot).await?;
            self.metrics.snapshots.inc();
            self.stored().entry(task_id).or_default().insert(name);
        }
        self.kept.insert(key, Arc::clone(tree));
        Ok(digest)
    }

    /// Whether a snapshot of the task was stored here and not taken out again.
    #[must_use]
    pub fn has_stored(&self, task_id: Uuid) -> bool {
        self.stored().contains_key(&task_id)
    }

    /// The names of the task's snapshots that were stored here, for the last time.
    #[must_use]
    pub fn take_stored(&self, task_id: Uuid) -> BTreeSet<String> {
        self.stored().remove(&task_id).unwrap_or_default()
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<Uuid, BTreeSet<String>>> {
        // A panic elsewhere can't leave the map half changed.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SnapshotError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SnapshotError::Corrupt(error.to_string()))
}

fn name(task_id: Uuid, digest: &str) -> String {
    format!("{PREFIX}/{task_id}/{digest}")
}

/// The task whose snapshot this is; none: it is none.
#[must_use]
pub fn task_of(name: &str) -> Option<Uuid> {
    let mut parts = name.split('/');
    let is_snapshot = parts.next() == Some(PREFIX);
    let task = parts.next().filter(|_| is_snapshot)?;
    task.parse().ok()
}

/// What the steps of a stretch of the log have made of the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Digest of the newest; none: it is as it was before.
    pub digest: Option<String>,
    /// The steps that have changed it, in order.
    pub steps: Vec<String>,
}

impl Progress {
    /// Goes on to these events.
    pub fn follow(&mut self, events: &[Event]) {
        let results = events.iter().filter(|event| event.kind == "step.executed");
        for executed in results.filter_map(|event| event.decode::<StepExecuted>().ok()) {
            if let Some(change) = executed.workspace {
                self.digest = Some(change.after);
                self.steps.push(executed.step_id);
            }
        }
    }

    /// From a dispatch on.
    #[must_use]
    pub fn since(dispatched: &StepDispatched, events: &[Event]) -> Self {
        let mut progress = Self {
            digest: dispatched.workspace.clone(),
            steps: Vec::new(),
        };
        progress.follow(events);
        progress
    }
}
