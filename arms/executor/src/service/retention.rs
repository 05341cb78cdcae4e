//! Workspaces of ended tasks: kept for a while, so that people can still look, then removed.
//!
//! The end of a task is heard as it is republished, which may be missed; so every workspace here is looked up in the log
//! at the start and from time to time.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use octollm_events::{Event, Log};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metrics::Metrics;
use crate::workspace::{Removal, Workspaces};

/// Between two looks at all workspaces.
const SWEEP: Duration = Duration::from_secs(3600);
/// When a workspace that a step holds, or that can't be removed, is tried again.
const LATER: Duration = Duration::from_secs(10);

/// Removes workspaces when their time is over.
pub struct Retention {
    log: Log,
    workspaces: Arc<Workspaces>,
    metrics: Metrics,
    keep: Duration,
    due: Mutex<Due>,
    changed: Notify,
}

/// Tasks by the time at which their workspace is to go.
#[derive(Default)]
struct Due {
    order: BTreeSet<(Instant, Uuid)>,
    tasks: HashSet<Uuid>,
}

impl Retention {
    /// Keeps a workspace for `keep` after its task's end.
    #[must_use]
    pub fn new(log: Log, workspaces: Arc<Workspaces>, metrics: Metrics, keep: Duration) -> Self {
        Self {
            log,
            workspaces,
            metrics,
            keep,
            due: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes note of a task's end.
    pub fn observe(&self, event: &Event) {
        if event.is_terminal() && self.workspaces.has(event.task_id) {
            self.schedule(event.task_id, self.keep);
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
            if Instant::now() >= sweep {
                self.sweep(&stop).await;
                sweep = Instant::now() + SWEEP;
            }
            while let Some(task_id) = self.take_due() {
                self.remove(task_id).await;
            }
        }
    }

    /// Schedules the workspaces whose tasks have ended, as the log says.
    async fn sweep(&self, stop: &CancellationToken) {
        let workspaces = Arc::clone(&self.workspaces);
        let tasks = match tokio::task::spawn_blocking(move || workspaces.tasks()).await {
            Ok(Ok(tasks)) => tasks,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "the workspaces can't be listed");
            }
            Err(error) => return tracing::warn!(%error, "the workspaces were not listed"),
        };
        for task_id in tasks {
            if stop.is_cancelled() {
                return;
            }
            match self.log.read(task_id, None).await {
                Ok(events) => {
                    if let Some(end) = events.last().filter(|event| event.is_terminal()) {
                        let age = OffsetDateTime::now_utc() - end.stored_at;
                        let age = Duration::try_from(age).unwrap_or_default();
                        self.schedule(task_id, self.keep.saturating_sub(age));
                    }
                }
                Err(error) => {
                    return tracing::warn!(%error, "the log can't be asked whose workspaces are needed");
                }
            }
        }
    }

    async fn remove(&self, task_id: Uuid) {
        let workspaces = Arc::clone(&self.workspaces);
        let removed = tokio::task::spawn_blocking(move || workspaces.remove(task_id)).await;
        match removed.map_err(std::io::Error::from) {
            Ok(Ok(Removal::Removed)) => {
                self.metrics.workspaces_removed.inc();
                tracing::info!(%task_id, "the workspace of the ended task is removed");
            }
            Ok(Ok(Removal::Absent)) => {}
            Ok(Ok(Removal::Held)) => self.schedule(task_id, LATER),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%task_id, %error, "the workspace was not removed; the next look tries again");
            }
        }
    }

    fn schedule(&self, task_id: Uuid, after: Duration) {
        let mut due = self.lock();
        if due.tasks.insert(task_id) {
            due.order.insert((Instant::now() + after, task_id));
            self.changed.notify_one();
        }
    }

    fn take_due(&self) -> Option<Uuid> {
        let mut due = self.lock();
        let (at, task_id) = *due.order.first()?;
        if at > Instant::now() {
            return None;
        }
        due.order.pop_first();
        due.tasks.remove(&task_id);
        Some(task_id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Due> {
        // A panic elsewhere can't leave the two half changed.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
