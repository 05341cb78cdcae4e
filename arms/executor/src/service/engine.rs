//! What both ways in share, the bus and HTTP: verifying, claiming, running, counting.

use std::sync::Arc;

use octollm_events::carrier::ErrorCode;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::claim::Claims;
use super::metrics::Metrics;
use super::notary::Notary;
use super::snapshots::Snapshots;
use super::watch::SandboxWatch;
use crate::capability::Verifier;
use crate::step::{Assignment, Executor, Outcome, Recorded};
use crate::workspace::Tree;

/// Runs steps, whoever asks.
pub struct Engine {
    /// Says what was granted.
    pub verifier: Verifier,
    /// What must not be started twice.
    pub claims: Claims,
    /// Policy and sandbox.
    pub executor: Executor,
    /// What signs results.
    pub notary: Arc<Notary>,
    /// What steps work on.
    pub snapshots: Arc<Snapshots>,
    /// Whether the sandbox works.
    pub watch: Arc<SandboxWatch>,
    /// What is counted.
    pub metrics: Metrics,
    /// One for each step that may run at the same time.
    pub places: Arc<Semaphore>,
    /// Kills what still runs when the executor has to stop.
    pub abandon: CancellationToken,
}

impl Engine {
    /// Runs one step to its end. When this returns, no process of it is left.
    pub async fn execute(
        &self,
        assignment: Assignment,
        workspace: Arc<Tree>,
        recorded: Recorded,
        cancel: &CancellationToken,
    ) -> Outcome {
        let running = self.metrics.count_running();
        let outcome = self
            .executor
            .execute(assignment, workspace, recorded, cancel)
            .await;
        drop(running);
        if outcome.failure.as_ref().map(|failure| failure.code)
            == Some(ErrorCode::SandboxUnavailable)
        {
            self.watch.doubt().await;
        }
        self.metrics.count(&outcome);
        outcome
    }
}
