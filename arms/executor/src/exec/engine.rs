//! Runs requests with the parts that run the steps of tasks: policy, sandbox, workspace, and what ties them together.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal};
use super::collect::collect;
use super::environment;
use super::request::Request;
use super::space::Space;
use crate::policy::{Policy, RequestedLimits};
use crate::sandbox::Sandbox;
use crate::step::{Assignment, Circumstances, Executor, Outcome, Recorded};

/// Who decides which programs are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The policy.
    Listed,
    /// Nobody: any program that the sandbox shows, so that the sandbox itself can be tried. The limits hold.
    Unlisted,
}

/// Policy and sandbox, for any number of requests.
pub struct Engine {
    executor: Executor,
}

impl Engine {
    /// An engine of this policy over this sandbox.
    #[must_use]
    pub fn new(policy: Policy, sandbox: Arc<dyn Sandbox>) -> Self {
        Self {
            executor: Executor::new(policy, sandbox),
        }
    }

    /// Runs a request to its end: the answer, and the outcome that it tells of. When this returns, no process of it is
    /// left.
    pub async fn run(
        &self,
        request: Request,
        space: &Space,
        admission: Admission,
        cancel: &CancellationToken,
    ) -> (Answer, Outcome) {
        match self.try_run(request, space, admission, cancel).await {
            Ok(told) => told,
            Err(refusal) => refusal.told(),
        }
    }

    async fn try_run(
        &self,
        request: Request,
        space: &Space,
        admission: Admission,
        cancel: &CancellationToken,
    ) -> Result<(Answer, Outcome), Refusal> {
        environment::check(&request.environment)?;
        let limits = RequestedLimits::from(request.limits);
        let workspace = space.with_files(&request.files)?;
        let circumstances = Circumstances {
            environment: request.environment.into_iter().collect(),
            cwd: request.cwd,
            is_unlisted: admission == Admission::Unlisted,
            head_bytes: usize::try_from(limits.output_bytes).unwrap_or(usize::MAX),
        };
        let assignment = Assignment::new(request.action, limits, circumstances);
        let outcome = self
            .executor
            .execute(assignment, Arc::clone(&workspace), Recorded::new(), cancel)
            .await;
        // What a step that failed has changed is as if it had not been.
        space.keep(outcome.changed(&workspace).unwrap_or(&workspace))?;
        // Of a step that failed, too: what it has left may tell why.
        let left = outcome.workspace.as_ref().unwrap_or(&workspace);
        let collected = collect(left, &request.collect);
        Ok((Answer::of(&outcome).with_artifacts(collected), outcome))
    }
}
