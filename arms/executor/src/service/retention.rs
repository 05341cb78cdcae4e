//! Snapshots of ended tasks: kept for a while, so that people can still look, then removed.
//!
//! The end of a task is heard as it is republished, which may be missed; so the tasks of all snapshots are looked up in the
//! log at the start and from time to time. Several executors may do so at once: removing twice does no harm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use octollm_events::log::ReadError;
use octollm_events::{Event, Log};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::artifacts::StoreError;
use super::metrics::Metrics;
use super::snapshots::{Snapshots, task_of};

/// Between two looks at all snapshots.
const SWEEP: Duration = Duration::from_secs(3600);
/// When a store that did not answer is asked again.
const LATER: Duration = Duration::from_secs(10);

/// The log or the store did not answer.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Removes snapshots when their time is over.
pub struct Retention {
    log: Log,
    snapshots: Arc<Snapshots>,
    metrics: Metrics,
    keep: Duration,
    due: Mutex<Due>,
    changed: Notify,
}

/// Tasks by the time at which their snapshots are to go.
#[derive(Default)]
struct Due {
    order: BTreeSet<(Instant, Uuid)>,
    /// Names that were found in the store.
    tasks: HashMap<Uuid, BTreeSet<String>>,
    /// Names whose content is gone; the store goes on knowing them.
    removed: HashSet<String>,
}

impl Retention {
    /// Keeps snapshots for `keep` after their task's end.
    #[must_use]
    pub fn new(log: Log, snapshots: Arc<Snapshots>, metrics: Metrics, keep: Duration) -> Self {
        Self {
            log,
            snapshots,
            metrics,
            keep,
            due: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes note of a task's end.
    pub fn observe(&self, event: &Event) {
        if event.is_terminal() && self.snapshots.has_stored(event.task_id) {
            self.schedule(event.task_id, BTreeSet::new(), self.keep);
        }
    }

    /// Removes what is due until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut sweep = Instant::now();
        loop {
            let next = self
                .lock()
                .order
                .first()
                .map_or(sweep, |(due, _)| sweep.min(*due));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => continue,
                () = sleep_until(next) => {}
            }
            while let Some((task_id, found)) = self.take_due() {
                self.remove(task_id, found).await;
            }
            if Instant::now() >= sweep {
                let looked = self.look(&stop).await;
                let _ = looked.as_ref().inspect_err(|error| {
                    tracing::warn!(%error, "nobody can say which snapshots are still needed; asking again");
                });
                sweep = Instant::now() + if looked.is_ok() { SWEEP } else { LATER };
            }
        }
    }

    /// Schedules the snapshots of all tasks that have ended, as the log says.
    async fn look(&self, stop: &CancellationToken) -> Result<(), RetentionError> {
        let mut tasks: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
        for name in self.snapshots.artifacts().names().await? {
            match task_of(&name) {
                Some(task_id) if !self.lock().removed.contains(&name) => {
                    tasks.entry(task_id).or_default().insert(name);
                }
                _ => {}
            }
        }
        for (task_id, names) in tasks {
            if stop.is_cancelled() {
                break;
            }
            let events = self.log.read(task_id, None).await?;
            if let Some(end) = events.last().filter(|event| event.is_terminal()) {
                let age = OffsetDateTime::now_utc() - end.stored_at;
                let age = Duration::try_from(age).unwrap_or_default();
                self.schedule(task_id, names, self.keep.saturating_sub(age));
            }
        }
        Ok(())
    }

    async fn remove(&self, task_id: Uuid, found: BTreeSet<String>) {
        let mut names = self.snapshots.take_stored(task_id);
        names.extend(found);
        let mut left = BTreeSet::new();
        for name in names {
            match self.snapshots.artifacts().remove(&name).await {
                Ok(is_removed) => {
                    self.metrics.snapshots_removed.inc_by(u64::from(is_removed));
                    self.lock().removed.insert(name);
                }
                Err(error) => {
                    tracing::warn!(%task_id, name, %error, "the snapshot of the ended task was not removed; trying again");
                    left.insert(name);
                }
            }
        }
        if !left.is_empty() {
            self.schedule(task_id, left, LATER);
        }
    }

    fn schedule(&self, task_id: Uuid, names: BTreeSet<String>, after: Duration) {
        let mut due = self.lock();
        let is_new = !due.tasks.contains_key(&task_id);
        due.tasks.entry(task_id).or_default().extend(names);
        if is_new {
            due.order.insert((Instant::now() + after, task_id));
            self.changed.notify_one();
        }
    }

    fn take_due(&self) -> Option<(Uuid, BTreeSet<String>)> {
        let mut due = self.lock();
        let (at, task_id) = *due.order.first()?;
        if at > Instant::now() {
            return None;
        }
        due.order.pop_first();
        Some((task_id, due.tasks.remove(&task_id).unwrap_or_default()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Due> {
        // A panic elsewhere can't leave the two half changed.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
