//! Runs requests with the parts that run the steps of tasks: policy, sandbox, workspace, and what ties them together.

use std::sync::Arc;

use octollm_events::carrier::{ErrorCode, ReceiptAction, ReceiptLimits};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::answer::{Answer, Refusal};
use super::collect::collect;
use super::request::Request;
use super::space::Space;
use crate::action;
use crate::policy::{Policy, RequestedLimits};
use crate::receipt::{Evidence, Key, Terms, sign};
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
    policy: String,
    signer: Option<Signer>,
}

/// What vouches for answers.
struct Signer {
    key: Key,
    is_degraded_allowed: bool,
}

impl Engine {
    /// An engine of this policy over this sandbox.
    #[must_use]
    pub fn new(policy: Policy, sandbox: Arc<dyn Sandbox>) -> Self {
        Self {
            policy: policy.digest().to_owned(),
            executor: Executor::new(policy, sandbox),
            signer: None,
        }
    }

    /// Gives answers a receipt. `is_degraded_allowed`: whether the sandbox may lack a layer.
    #[must_use]
    pub fn signing(mut self, key: Key, is_degraded_allowed: bool) -> Self {
        self.signer = Some(Signer {
            key,
            is_degraded_allowed,
        });
        self
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
            .execute(assignment, Arc::clone(&workspace), Recorded::new(), cancel)
            .await;
        // What a step that failed has changed is as if it had not been.
        space.keep(outcome.changed(&workspace).unwrap_or(&workspace))?;
        // Of a step that failed, too: what it has left may tell why.
        let left = outcome.workspace.as_ref().unwrap_or(&workspace);
        let collected = collect(left, &request.collect);
        let mut answer = Answer::of(&outcome).with_artifacts(collected);
        if let Some(signer) = &self.signer {
            let terms = Terms {
                policy: self.policy.clone(),
                is_policy_bypassed: admission == Admission::Unlisted,
                is_degraded_allowed: signer.is_degraded_allowed,
            };
            signer.sign(
                &mut answer,
                &outcome,
                &request.action_value,
                &limits,
                &terms,
            )?;
        }
        Ok(answer)
    }
}

impl Signer {
    fn sign(
        &self,
        answer: &mut Answer,
        outcome: &Outcome,
        action: &Value,
        limits: &RequestedLimits,
        terms: &Terms,
    ) -> Result<(), Refusal> {
        let lost = |error: &dyn std::fmt::Display| {
            Refusal::new(
                ErrorCode::InternalError,
                format!("it has run, and no receipt can be made: {error}"),
            )
        };
        let result = answer.document().map_err(|error| lost(&error))?;
        let evidence = Evidence {
            name: format!("exec/{}", Uuid::new_v4()),
            attempt: None,
            previous: None,
            action: ReceiptAction {
                kind: action["kind"].as_str().unwrap_or_default().to_owned(),
                digest: action::digest(action).map_err(|error| lost(&error))?,
            },
            limits: ReceiptLimits {
                wall_ms: limits.wall_ms,
                memory_bytes: limits.memory_bytes,
                output_bytes: limits.output_bytes,
                cpu_seconds: limits.cpu_seconds,
                processes: limits.processes,
                open_files: limits.open_files,
                file_bytes: limits.file_bytes,
                tmp_bytes: limits.tmp_bytes,
            },
            terms,
            outcome,
            code: answer.code,
            violations: outcome.denials.clone(),
            ended_at: OffsetDateTime::now_utc(),
            result: &result,
        };
        answer.receipt = Some(sign(&evidence, &self.key).map_err(|error| lost(&error))?);
        Ok(())
    }
}
