//! Verification of the receipts in a log or an export: pure, offline, message by message.

use std::collections::HashMap;

use octollm_events::carrier::{ReceiptAttempt, ReceiptEnvelope};
use octollm_events::chain::Message;
use octollm_events::envelope::{EventHash, TERMINAL};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::envelope::{self, Fault, Opened};
use super::finding::{Code, Finding, TaskReport};
use super::key::PublicKeys;
use crate::capability::action_digest;

/// The arm whose results have receipts.
const ARM: &str = "executor";
const RESULTS: [&str; 2] = ["step.executed", "step.failed"];
/// Who writes `step.failed` for an arm that is silent; nothing was executed that a receipt could tell of.
const ORCHESTRATOR: &str = "/octollm/orchestrator";

/// Verifies the receipts of every task among the messages, which are in the order in which they are stored.
///
/// It shows that whoever holds a key has vouched for each result as it stands, for the action that was dispatched, and in
/// this order. It does not show that the chain of *events* is whole ([`octollm_events::chain`] does), nor that the last
/// result of a task was not cut off; and whoever holds the private key, or the kernel under the executor, can have it
/// sign anything.
pub fn verify(messages: impl IntoIterator<Item = Message>, keys: &PublicKeys) -> Vec<TaskReport> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for message in messages {
        let (kind, task_id) = message.subject.rsplit_once('.').unwrap_or_default();
        let place = *places.entry(task_id.to_owned()).or_insert_with(|| {
            tasks.push(Task::new(task_id));
            tasks.len() - 1
        });
        tasks[place].take(kind, &message, keys);
    }
    tasks.into_iter().map(|task| task.report).collect()
}

/// One task's receipts so far.
struct Task {
    report: TaskReport,
    /// Dispatches that wait for their result, by the id of their event.
    dispatches: HashMap<String, Dispatch>,
    previous: Option<String>,
}

struct Dispatch {
    arm: String,
    action: String,
    hash: String,
}

/// What of a result's payload says whose it is.
#[derive(Deserialize)]
struct About {
    plan_version: u64,
    step_id: String,
    attempt: u64,
}

impl Task {
    fn new(task_id: &str) -> Self {
        let report = TaskReport {
            task_id: task_id.to_owned(),
            results: 0,
            verified: 0,
            findings: Vec::new(),
        };
        Self {
            report,
            dispatches: HashMap::new(),
            previous: None,
        }
    }

    fn take(&mut self, kind: &str, message: &Message, keys: &PublicKeys) {
        if kind == "step.dispatched" {
            self.dispatched(message);
        } else if RESULTS.contains(&kind) {
            self.result(kind, message, keys);
        } else if TERMINAL.contains(&kind) {
            self.dispatches.clear();
        }
    }

    fn dispatched(&mut self, message: &Message) {
        #[derive(Deserialize)]
        struct Dispatched {
            step: Step,
        }
        #[derive(Deserialize)]
        struct Step {
            arm: String,
            action: Value,
        }
        let id = message.headers.get("ce-id");
        let dispatched = serde_json::from_slice::<Dispatched>(&message.body);
        if let (Some(id), Ok(Dispatched { step })) = (id, dispatched) {
            let hash = EventHash::of(&message.subject, &message.headers, &message.body);
            let dispatch = Dispatch {
                arm: step.arm,
                action: action_digest(&step.action),
                hash: hash.to_string(),
            };
            self.dispatches.insert(id.clone(), dispatch);
        }
    }

    fn result(&mut self, kind: &str, message: &Message, keys: &PublicKeys) {
        let header = |name| message.headers.get(name).map(String::as_str);
        let cause = header("ce-causationid");
        let dispatch = cause.and_then(|id| self.dispatches.remove(id));
        let payload = serde_json::from_slice::<Value>(&message.body).unwrap_or_default();
        let found = match payload.get(envelope::MEMBER) {
            Some(receipt) => self.check(message, &payload, receipt, dispatch.as_ref(), keys),
            None => {
                let is_silent = kind == "step.failed" && header("ce-source") == Some(ORCHESTRATOR);
                if is_silent || dispatch.is_some_and(|dispatch| dispatch.arm != ARM) {
                    return;
                }
                Err((Code::MissingReceipt, String::new()))
            }
        };
        self.report.results += 1;
        match found {
            Ok(()) => self.report.verified += 1,
            Err((code, detail)) => self.report.findings.push(Finding {
                seq: message.seq,
                code,
                detail,
            }),
        }
    }

    fn check(
        &mut self,
        message: &Message,
        payload: &Value,
        receipt: &Value,
        dispatch: Option<&Dispatch>,
        keys: &PublicKeys,
    ) -> Result<(), (Code, String)> {
        let malformed = |what: &str| (Code::Malformed, what.to_owned());
        let envelope = ReceiptEnvelope::deserialize(receipt)
            .map_err(|_| malformed("it is no envelope with a signature"))?;
        let before = self.previous.replace(envelope::digest(&envelope));
        let Opened { statement, .. } =
            envelope::open(&envelope, keys).map_err(|fault| match fault {
                Fault::Malformed(what) => malformed(what),
                Fault::UnknownKey(id) => (Code::UnknownKey, format!("key {id}")),
                Fault::BadSignature => (Code::BadSignature, String::new()),
            })?;
        let subject = &statement.subject[0];
        let receipt = &statement.predicate;
        let about =
            About::deserialize(payload).map_err(|_| malformed("the result names no step"))?;
        if !receipt
            .attempt
            .as_ref()
            .is_some_and(|attempt| self.is_about(attempt, &about, &subject.name))
        {
            return Err((Code::OtherResult, format!("it is that of {}", subject.name)));
        }
        let result = message
            .body
            .strip_suffix(envelope::tail(&envelope).as_slice())
            .map(|open| [open, b"}"].concat());
        let is_same =
            result.is_some_and(|body| hex::encode(Sha256::digest(body)) == subject.digest.sha256);
        if !is_same {
            return Err((Code::Altered, String::new()));
        }
        let named = receipt
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.dispatch.as_deref());
        match dispatch {
            None => {
                let detail = "the dispatch that it answers is not on record";
                return Err((Code::OtherDispatch, detail.to_owned()));
            }
            Some(dispatch) if named != Some(dispatch.hash.as_str()) => {
                return Err((Code::OtherDispatch, String::new()));
            }
            Some(dispatch) if dispatch.action != receipt.action.digest => {
                return Err((Code::OtherAction, String::new()));
            }
            Some(_) => {}
        }
        if receipt.previous != before {
            let detail = match (&receipt.previous, &before) {
                (None, _) => "it says that it is the task's first",
                (Some(_), None) => "it names one before it, and none is on record",
                (Some(_), Some(_)) => "it names another one than the one before it",
            };
            return Err((Code::BrokenChain, detail.to_owned()));
        }
        Ok(())
    }

    fn is_about(&self, attempt: &ReceiptAttempt, about: &About, name: &str) -> bool {
        let About {
            plan_version,
            step_id,
            attempt: number,
        } = about;
        let task_id = &self.report.task_id;
        attempt.task_id == *task_id
            && attempt.plan_version == *plan_version
            && attempt.step_id == *step_id
            && attempt.attempt == *number
            && name == format!("{task_id}/{plan_version}/{step_id}/{number}")
    }
}
