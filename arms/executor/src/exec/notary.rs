//! Signs answers: what was run here can be shown elsewhere.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use octollm_events::carrier::{ErrorCode, ReceiptAction, ReceiptLimits};
use time::OffsetDateTime;
use uuid::Uuid;

use super::answer::{Answer, Refusal};
use super::request::Request;
use crate::capability::action_digest;
use crate::policy::RequestedLimits;
use crate::receipt::{Evidence, Key, Terms, sign};
use crate::step::Outcome;

/// The key, and what holds for all it signs.
pub(super) struct Notary {
    key: Key,
    terms: Terms,
}

/// What of a request stands in its receipt.
pub(super) struct Asked {
    action: ReceiptAction,
    limits: ReceiptLimits,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        let limits = RequestedLimits::from(request.limits);
        let kind = request.action_value["kind"].as_str();
        Self {
            action: ReceiptAction {
                kind: kind.unwrap_or_default().to_owned(),
                digest: action_digest(&request.action_value),
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
        }
    }
}

impl Notary {
    /// With the key in this file: the stack's, where there is one; else it is made, with its directory, closed to others.
    ///
    /// # Errors
    /// The file system refuses, or others may read the key: nothing is run that could not be vouched for.
    pub(super) fn open(file: &Path, terms: Terms) -> Result<Self, Refusal> {
        if let Some(directory) = file.parent() {
            // What is wrong with it, the key's making will tell.
            let _ = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
        }
        let key = Key::load_or_make(file)
            .map_err(|error| Refusal::new(ErrorCode::InternalError, error.to_string()))?;
        Ok(Self { key, terms })
    }

    /// The answer with its receipt, which covers every byte of the document before it.
    ///
    /// # Errors
    /// The answer is no JSON: a defect of this program.
    pub(super) fn sign(
        &self,
        mut answer: Answer,
        outcome: &Outcome,
        asked: &Asked,
    ) -> Result<Answer, Refusal> {
        let unsigned = |error: String| {
            let problem = format!("it was answered, and no receipt can be made: {error}");
            Refusal::new(ErrorCode::InternalError, problem)
        };
        let result = answer
            .document()
            .map_err(|error| unsigned(error.to_string()))?;
        let evidence = Evidence {
            name: format!("exec/{}", Uuid::new_v4()),
            attempt: None,
            previous: None,
            action: asked.action.clone(),
            limits: asked.limits.clone(),
            terms: &self.terms,
            outcome,
            code: answer.code,
            violations: Vec::new(),
            ended_at: OffsetDateTime::now_utc(),
            result: &result,
        };
        let envelope = sign(&evidence, &self.key).map_err(|error| unsigned(error.to_string()))?;
        answer.receipt = Some(envelope);
        Ok(answer)
    }
}
