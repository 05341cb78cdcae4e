//! Signs results before they are put on record.

use octollm_events::carrier::{
    ErrorCode, ReceiptAction, ReceiptAttempt, ReceiptLimits, StepDispatched,
};
use octollm_events::envelope::EventHash;
use octollm_events::{NewEvent, SchemaViolation};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::receipt::{self, Evidence, Key, SigningError, Terms, sign};
use crate::step::Outcome;

/// A result has no receipt: a defect of this executor.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// With its receipt it breaks its schema.
    #[error(transparent)]
    Payload(#[from] SchemaViolation),
}

/// The executor's key, and what holds for all it signs.
pub struct Notary {
    key: Key,
    terms: Terms,
}

/// What a receipt says beside the result itself.
pub struct Case<'a> {
    /// The task.
    pub task_id: Uuid,
    /// What was asked for.
    pub dispatched: &'a StepDispatched,
    /// Digest of its action.
    pub action: String,
    /// Hash of the event that asked; none for a step on the operator's word.
    pub dispatch: Option<EventHash>,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// When it ended.
    pub ended_at: OffsetDateTime,
}

/// A result with its receipt.
pub struct Signed {
    /// The event with the receipt in it.
    pub event: NewEvent,
    /// Digest of the receipt, for the next one of the task.
    pub digest: String,
}

impl Notary {
    /// Signs with this key, under these terms.
    #[must_use]
    pub fn new(key: Key, terms: Terms) -> Self {
        Self { key, terms }
    }

    /// The event with its receipt; `previous` is the digest of the task's receipt before it. The same, byte by byte, for
    /// the same case and `previous`.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn sign(
        &self,
        case: &Case<'_>,
        event: &NewEvent,
        previous: Option<&str>,
    ) -> Result<Signed, Unsigned> {
        /// What of a result on record a receipt repeats: it is screened there.
        #[derive(Deserialize)]
        struct OnRecord {
            code: Option<ErrorCode>,
            #[serde(default)]
            violations: Vec<String>,
        }
        let result = event.body();
        let OnRecord { code, violations } =
            serde_json::from_slice(result).map_err(SigningError::from)?;
        let StepDispatched {
            plan_version,
            step,
            attempt,
            ..
        } = case.dispatched;
        let (task_id, step_id) = (case.task_id, &step.id);
        let evidence = Evidence {
            name: format!("{task_id}/{plan_version}/{step_id}/{attempt}"),
            attempt: Some(ReceiptAttempt {
                task_id: task_id.to_string(),
                plan_version: *plan_version,
                step_id: step_id.clone(),
                attempt: *attempt,
                purpose: case.dispatched.purpose.to_string(),
                capability: hex::encode(Sha256::digest(&case.dispatched.capability)),
                dispatch: case.dispatch.map(|hash| hash.to_string()),
            }),
            previous,
            action: ReceiptAction {
                kind: kind(case.dispatched),
                digest: case.action.clone(),
            },
            limits: ReceiptLimits {
                wall_ms: step.limits.wall_ms,
                memory_bytes: step.limits.memory_bytes,
                output_bytes: step.limits.output_bytes,
                cpu_seconds: None,
                processes: None,
                open_files: None,
                file_bytes: None,
                tmp_bytes: None,
            },
            terms: &self.terms,
            outcome: case.outcome,
            code,
            violations,
            ended_at: case.ended_at,
            result,
        };
        let envelope = sign(&evidence, &self.key)?;
        Ok(Signed {
            digest: receipt::digest(&envelope),
            event: event.clone().with_member(receipt::MEMBER, &envelope)?,
        })
    }
}

/// The kind of the action, as it stands in the dispatch.
fn kind(dispatched: &StepDispatched) -> String {
    let action = serde_json::to_value(&dispatched.step.action).unwrap_or_default();
    action["kind"].as_str().unwrap_or_default().to_owned()
}
