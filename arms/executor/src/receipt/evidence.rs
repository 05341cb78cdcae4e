//! What a receipt says, and signing it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use octollm_events::carrier::{
    ErrorCode, Receipt, ReceiptAction, ReceiptAttempt, ReceiptCommand, ReceiptDenial,
    ReceiptDigest, ReceiptEnvelope, ReceiptExecutor, ReceiptInputs, ReceiptLimits, ReceiptOutputs,
    ReceiptPeaks, ReceiptPolicy, ReceiptResult, ReceiptSandbox, ReceiptStatement, ReceiptStream,
    ReceiptSubject,
};
use octollm_events::envelope::milliseconds;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::envelope::seal;
use super::key::Key;
use crate::sandbox::{Captured, Denial, Digests, Limits, Peaks, StageExit, gaps};
use crate::step::{Outcome, Pipeline};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "urn:octollm:receipt:v1";
/// Bytes of a statement, at most: with base64 a third more, an envelope stays within its schema.
const MAX_STATEMENT_BYTES: usize = 12_000;

/// Kernel denials in one receipt, and characters of each; as its schema says.
const MAX_DENIALS: usize = 64;
const MAX_DETAIL: usize = 200;

static HOST: LazyLock<ReceiptExecutor> = LazyLock::new(|| {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ReceiptExecutor {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel.trim().chars().take(80).collect(),
        machine: std::env::consts::ARCH.to_owned(),
    }
});

/// The receipt could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the receipt can't be signed: {0}")]
pub struct SigningError(#[from] serde_json::Error);

/// What holds for every step of an executor.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Digest of the policy in force, hexadecimal.
    pub policy: String,
    /// Whoever ran it had the policy not asked.
    pub is_policy_bypassed: bool,
    /// The configuration lets steps run where the kernel lacks a layer that they should have.
    pub is_degraded_allowed: bool,
}

/// What a receipt vouches for.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Names the result: `<task>/<plan version>/<step>/<attempt>`, or the execution where there is no task.
    pub name: String,
    /// The attempt of a task's step.
    pub attempt: Option<ReceiptAttempt>,
    /// Digest of the task's receipt before this one.
    pub previous: Option<&'a str>,
    /// What was asked for.
    pub action: ReceiptAction,
    /// The limits that were asked for; those in force are in the outcome, where a program was to be started.
    pub limits: ReceiptLimits,
    /// Policy and configuration.
    pub terms: &'a Terms,
    /// What became of it.
    pub outcome: &'a Outcome,
    /// Its code on record; none where it succeeded.
    pub code: Option<ErrorCode>,
    /// Rules that were broken, as they stand on record.
    pub violations: Vec<String>,
    /// When it ended.
    pub ended_at: OffsetDateTime,
    /// The result as it is written, a JSON object without its receipt.
    pub result: &'a [u8],
}

/// Signs what is known of an execution.
///
/// # Errors
/// The result is no JSON.
pub fn sign(evidence: &Evidence<'_>, key: &Key) -> Result<ReceiptEnvelope, SigningError> {
    let mut statement = ReceiptStatement {
        _type: STATEMENT.to_owned(),
        subject: vec![ReceiptSubject {
            name: evidence.name.clone(),
            digest: ReceiptDigest {
                sha256: sha256(evidence.result),
            },
        }],
        predicateType: PREDICATE.to_owned(),
        predicate: receipt(evidence)?,
    };
    let mut text = serde_json_canonicalizer::to_vec(&statement)?;
    for (name, leave_out) in OMITTED {
        if text.len() <= MAX_STATEMENT_BYTES {
            break;
        }
        if leave_out(&mut statement.predicate) {
            let omitted = statement.predicate.omitted.get_or_insert_default();
            omitted.push(name.to_owned());
            text = serde_json_canonicalizer::to_vec(&statement)?;
        }
    }
    Ok(seal(&text, key))
}

/// Takes a member out of a receipt; false where it is not in it.
type LeaveOut = fn(&mut Receipt) -> bool;

/// What gives way first where a receipt would be too large. All of it is bound by a digest that stays: the arguments by
/// their own and the action's, the violations by that of the result.
const OMITTED: [(&str, LeaveOut); 4] = [
    ("argv", |receipt| {
        let command = receipt.command.as_mut();
        command.is_some_and(|command| command.argv.take().is_some())
    }),
    ("violations", |receipt| receipt.violations.take().is_some()),
    ("environment", |receipt| {
        let command = receipt.command.as_mut();
        command.is_some_and(|command| !std::mem::take(&mut command.environment).is_empty())
    }),
    ("denials", |receipt| receipt.denials.take().is_some()),
];

fn receipt(evidence: &Evidence<'_>) -> Result<Receipt, serde_json::Error> {
    let Evidence { terms, outcome, .. } = evidence;
    let pipeline = outcome.pipeline.as_deref();
    let (exit_code, signal) = match outcome.exit {
        Some(StageExit::Code(code)) => (Some(u64::from(code)), None),
        Some(StageExit::Signal(signal)) => (None, Some(u64::from(signal))),
        None => (None, None),
    };
    let (stdout, stderr) = outcome.output.as_ref().map_or((None, None), |(out, err)| {
        (Some(captured(out)), Some(captured(err)))
    });
    let result: Value = serde_json::from_slice(evidence.result)?;
    Ok(Receipt {
        attempt: evidence.attempt.clone(),
        previous: evidence.previous.map(str::to_owned),
        executor: HOST.clone(),
        policy: ReceiptPolicy {
            digest: terms.policy.clone(),
            bypassed: terms.is_policy_bypassed,
        },
        action: evidence.action.clone(),
        command: pipeline.map(command).transpose()?,
        inputs: ReceiptInputs {
            stdin: pipeline.and_then(|pipeline| Some(stream(pipeline.stdin.as_deref()?))),
        },
        sandbox: sandbox(terms, pipeline),
        limits: pipeline.map_or_else(
            || evidence.limits.clone(),
            |pipeline| in_force(&pipeline.limits),
        ),
        peaks: pipeline
            .and_then(|pipeline| pipeline.peaks.as_ref())
            .map(|most| peaks(most, outcome)),
        denials: pipeline
            .filter(|pipeline| !pipeline.denials.is_empty())
            .map(|pipeline| {
                let denials = pipeline.denials.iter().take(MAX_DENIALS);
                denials.map(denial).collect()
            }),
        result: ReceiptResult {
            started: outcome.is_started,
            ended_at: milliseconds(evidence.ended_at),
            duration_ms: whole_milliseconds(outcome.usage.duration),
            code: evidence.code,
            exit_code,
            signal,
            canonical: sha256(&serde_json_canonicalizer::to_vec(&result)?),
        },
        outputs: ReceiptOutputs { stdout, stderr },
        violations: (!evidence.violations.is_empty()).then(|| evidence.violations.clone()),
        omitted: None,
    })
}

fn command(pipeline: &Pipeline) -> Result<ReceiptCommand, serde_json::Error> {
    let argv: Vec<Vec<String>> = pipeline
        .programs
        .iter()
        .map(|program| program.argv.clone())
        .collect();
    let programs = pipeline.programs.iter();
    Ok(ReceiptCommand {
        programs: programs
            .map(|program| program.path.to_string_lossy().into_owned())
            .collect(),
        argv_digest: sha256(&serde_json_canonicalizer::to_vec(&argv)?),
        environment: pipeline.environment.clone(),
        argv: Some(argv),
    })
}

fn sandbox(terms: &Terms, pipeline: Option<&Pipeline>) -> ReceiptSandbox {
    let layers = pipeline.map_or(&[][..], |pipeline| &pipeline.layers);
    let digests = pipeline.map(|pipeline| pipeline.digests.clone());
    let Digests {
        filter,
        ruleset,
        view,
    } = digests.unwrap_or_default();
    let lacking = if layers.is_empty() {
        BTreeMap::new()
    } else {
        gaps(layers)
    };
    ReceiptSandbox {
        degraded_allowed: terms.is_degraded_allowed,
        layers: layers
            .iter()
            .map(|layer| layer.as_str().to_owned())
            .collect(),
        gaps: lacking.into_keys().map(str::to_owned).collect(),
        seccomp: filter,
        landlock: ruleset,
        view,
    }
}

fn denial(denial: &Denial) -> ReceiptDenial {
    ReceiptDenial {
        kind: denial.kind.as_str().to_owned(),
        detail: denial.detail.chars().take(MAX_DETAIL).collect(),
        count: denial.count,
    }
}

fn in_force(limits: &Limits) -> ReceiptLimits {
    ReceiptLimits {
        wall_ms: whole_milliseconds(limits.wall),
        memory_bytes: limits.memory_bytes,
        output_bytes: limits.output_bytes,
        cpu_seconds: Some(limits.cpu_seconds),
        processes: Some(limits.processes),
        open_files: Some(limits.open_files),
        file_bytes: Some(limits.file_bytes),
        tmp_bytes: Some(limits.tmp_bytes),
    }
}

fn peaks(peaks: &Peaks, outcome: &Outcome) -> ReceiptPeaks {
    ReceiptPeaks {
        cpu_ms: whole_milliseconds(peaks.cpu),
        memory_bytes: peaks.memory_bytes,
        processes: peaks.processes,
        written_bytes: peaks.written_bytes,
        output_bytes: outcome
            .output
            .as_ref()
            .map_or(0, |(stdout, stderr)| stdout.bytes + stderr.bytes),
    }
}

fn captured(output: &Captured) -> ReceiptStream {
    ReceiptStream {
        bytes: output.bytes,
        digest: output.digest.clone(),
    }
}

fn stream(bytes: &[u8]) -> ReceiptStream {
    ReceiptStream {
        bytes: bytes.len() as u64,
        digest: sha256(bytes),
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
