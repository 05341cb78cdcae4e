//! Runs requests with the parts that run the steps of tasks: policy, sandbox, workspace, and what ties them together.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal};
use super::request::Request;
use super::space::Space;
use crate::policy::{Policy, RequestedLimits};
use crate::sandbox::Sandbox;
use crate::step::{Assignment, Circumstances, Executor, Recorded};

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

    /// Runs a request to its end. When this returns, no process of it is left.
    pub async fn run(
        &self,
        request: Request,
        space: &Space,
        admission: Admission,
        cancel: &CancellationToken,
    ) -> Answer {
        match self.try_run(request, space, admission, cancel).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.into(),
        }
    }

    async fn try_run(
        &self,
        request: Request,
        space: &Space,
        admission: Admission,
        cancel: &CancellationToken,
    ) -> Result<Answer, Refusal> {
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
            .execute(assignment, workspace, Recorded::new(), cancel)
            .await;
        Ok(Answer::of(outcome))
    }
}
