//! What `octo exec` says: one JSON document, and the exit status that goes with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use octollm_events::carrier::{ErrorCode, ReceiptEnvelope};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::receipt;
use crate::sandbox::{Captured, StageExit};
use crate::step::{Failure, Outcome};
use crate::workspace::WorkspacePath;

/// Artifacts, at most.
const MAX_ARTIFACTS: usize = 32;
/// Bytes of all artifacts together, at most.
const MAX_ARTIFACT_BYTES: usize = 64 << 20;

/// The exit status of a refusal by the policy; the list of errors gives that of a task which failed of one.
const DENIED: u8 = 3;

/// What became of a request, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran and did what it should.
    Ok,
    /// It ran, or should have, and did not end well.
    Failed,
    /// It was refused; nothing was started.
    Denied,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// In one word.
    pub status: Status,
    /// Of the list of errors; null where all is well.
    pub code: Option<ErrorCode>,
    /// What happened and what to do next; null where all is well.
    pub message: Option<String>,
    /// The last stage's; null where a signal or the executor ended it.
    pub exit_code: Option<u8>,
    /// The signal that ended the last stage.
    pub signal: Option<u8>,
    /// What was kept, as text.
    pub stdout: String,
    /// The same of all stages' stderr.
    pub stderr: String,
    /// Whether something that is no UTF-8 stands there as U+FFFD.
    pub lossy: bool,
    /// Whether more was written than stands there.
    pub truncated: bool,
    /// How much was written.
    pub bytes: Bytes,
    /// The files that were collected, by path.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Wall clock from the start of the programs to their end.
    pub duration_ms: u64,
    /// What vouches for all this: the document's last member, where there is a key. It covers the bytes before it.
    #[serde(skip)]
    pub receipt: Option<ReceiptEnvelope>,
}

/// Bytes that were written, kept or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// By the last stage.
    pub stdout: u64,
    /// By all stages.
    pub stderr: u64,
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Lower-case hex.
    pub sha256: String,
    /// The content.
    pub base64: String,
}

impl Artifact {
    /// The artifact of this content.
    #[must_use]
    pub fn new(content: &[u8]) -> Self {
        Self {
            sha256: hex::encode(Sha256::digest(content)),
            base64: STANDARD.encode(content),
        }
    }

    /// The content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        STANDARD.decode(&self.base64).unwrap_or_default()
    }
}

/// What was collected of a workspace.
pub(super) struct Collected {
    artifacts: BTreeMap<String, Artifact>,
    left: usize,
    is_cut: bool,
}

impl Collected {
    /// Nothing so far.
    pub(super) fn new() -> Self {
        Self {
            artifacts: BTreeMap::new(),
            left: MAX_ARTIFACT_BYTES,
            is_cut: false,
        }
    }

    /// Bytes that one more file may have; none: there may be no more.
    pub(super) fn room(&self) -> Option<usize> {
        (self.artifacts.len() < MAX_ARTIFACTS && !self.is_cut).then_some(self.left)
    }

    /// Says that there is more than may be handed back.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Adds a file that there is [room](Self::room) for.
    pub(super) fn add(&mut self, path: &WorkspacePath, content: &[u8]) {
        self.left = self.left.saturating_sub(content.len());
        self.artifacts
            .insert(path.to_string(), Artifact::new(content));
    }
}

/// A request that is not carried out, with the code and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Of the list of errors.
    pub code: ErrorCode,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Refusal {
    /// The answer, and the outcome that it tells of.
    pub(super) fn told(self) -> (Answer, Outcome) {
        let outcome = Outcome::refused(Failure::new(self.code, self.message));
        (Answer::of(&outcome), outcome)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.message)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        refusal.told().0
    }
}

impl Answer {
    /// The answer of an outcome, with no artifact so far.
    pub(super) fn of(outcome: &Outcome) -> Self {
        let (code, message) = match &outcome.failure {
            Some(Failure { code, message, .. }) => (Some(*code), Some(message.clone())),
            None => (None, None),
        };
        let (exit_code, signal) = match outcome.exit {
            Some(StageExit::Code(code)) => (Some(code), None),
            Some(StageExit::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let nothing = (Captured::empty(), Captured::empty());
        let (stdout, stderr) = outcome.output.as_ref().unwrap_or(&nothing);
        let (out, err) = (text(stdout), text(stderr));
        Self {
            status: status(code),
            code,
            message,
            exit_code,
            signal,
            stdout: out.0,
            stderr: err.0,
            lossy: out.1 || err.1,
            // What was killed for its output had more to say, even where all that came was kept.
            truncated: code == Some(ErrorCode::OutputLimit)
                || stdout.is_truncated()
                || stderr.is_truncated(),
            bytes: Bytes {
                stdout: stdout.bytes,
                stderr: stderr.bytes,
            },
            artifacts: BTreeMap::new(),
            duration_ms: milliseconds(outcome.usage.duration),
            receipt: None,
        }
    }

    /// Puts the artifacts in, and says so if some are left out.
    pub(super) fn with_artifacts(mut self, collected: Collected) -> Self {
        self.artifacts = collected.artifacts;
        if collected.is_cut && self.status == Status::Ok {
            self.status = Status::Failed;
            self.code = Some(ErrorCode::OutputLimit);
            self.message = Some(format!(
                "collect matches more than {MAX_ARTIFACTS} files or {MAX_ARTIFACT_BYTES} bytes; the first are handed back"
            ));
        }
        self
    }

    /// The document, one line.
    ///
    /// # Errors
    /// Never for what this module makes: only what can't be written as JSON.
    pub fn document(&self) -> serde_json::Result<Vec<u8>> {
        let document = serde_json::to_vec(self)?;
        Ok(match &self.receipt {
            Some(envelope) => receipt::attach(&document, envelope),
            None => document,
        })
    }

    /// The exit status: that of the code in the list of errors, and 3 where the policy refused.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.code {
            None => 0,
            Some(ErrorCode::PolicyDenied) => DENIED,
            Some(code) => code.info().exit_code,
        }
    }
}

fn status(code: Option<ErrorCode>) -> Status {
    match code {
        None => Status::Ok,
        Some(ErrorCode::PolicyDenied | ErrorCode::InvalidRequest | ErrorCode::PayloadTooLarge) => {
            Status::Denied
        }
        Some(_) => Status::Failed,
    }
}

/// What was kept as text, and whether that lost anything. Head and tail of an output that was cut stand side by side.
fn text(captured: &Captured) -> (String, bool) {
    let kept = [captured.head.as_slice(), &captured.tail].concat();
    let text = String::from_utf8_lossy(&kept);
    let lossy = matches!(text, Cow::Owned(_));
    (text.into_owned(), lossy)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
