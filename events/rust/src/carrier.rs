//! Carrier types, generated from `events/schemas` by `cargo run -p octollm-events --example carrier`:
//! do not edit.
#![allow(missing_docs, non_snake_case, clippy::large_enum_variant)]

use crate::schema::{Command, Fact, Payload};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// Every schema as `(name, version, text)`.
#[rustfmt::skip]
pub(crate) const SCHEMAS: &[(&str, u32, &str)] = &[
    ("contract", 1, include_str!("../../schemas/contract/v1.json")),
    ("error", 1, include_str!("../../schemas/error/v1.json")),
    ("plan", 1, include_str!("../../schemas/plan/v1.json")),
    ("plan.failed", 1, include_str!("../../schemas/plan.failed/v1.json")),
    ("plan.requested", 1, include_str!("../../schemas/plan.requested/v1.json")),
    ("receipt", 1, include_str!("../../schemas/receipt/v1.json")),
    ("record", 1, include_str!("../../schemas/record/v1.json")),
    ("step.dispatched", 1, include_str!("../../schemas/step.dispatched/v1.json")),
    ("step.executed", 1, include_str!("../../schemas/step.executed/v1.json")),
    ("step.failed", 1, include_str!("../../schemas/step.failed/v1.json")),
    ("task.approve", 1, include_str!("../../schemas/task.approve/v1.json")),
    ("task.cancel", 1, include_str!("../../schemas/task.cancel/v1.json")),
    ("task.cancel_requested", 1, include_str!("../../schemas/task.cancel_requested/v1.json")),
    ("task.cancelled", 1, include_str!("../../schemas/task.cancelled/v1.json")),
    ("task.completed", 1, include_str!("../../schemas/task.completed/v1.json")),
    ("task.failed", 1, include_str!("../../schemas/task.failed/v1.json")),
    ("task.planned", 1, include_str!("../../schemas/task.planned/v1.json")),
    ("task.received", 1, include_str!("../../schemas/task.received/v1.json")),
    ("task.rejected", 1, include_str!("../../schemas/task.rejected/v1.json")),
    ("task.resume", 1, include_str!("../../schemas/task.resume/v1.json")),
    ("task.submit", 1, include_str!("../../schemas/task.submit/v1.json")),
];

/// Every event as `(kind, version)`.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("plan.failed", 1),
    ("plan.requested", 1),
    ("step.dispatched", 1),
    ("step.executed", 1),
    ("step.failed", 1),
    ("task.cancel_requested", 1),
    ("task.cancelled", 1),
    ("task.completed", 1),
    ("task.failed", 1),
    ("task.planned", 1),
    ("task.received", 1),
    ("task.rejected", 1),
];

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    Command(CommandAction),
    File(FileAction),
    Http(HttpAction),
    Script(ScriptAction),
    Check(CheckAction),
}

/// What a task may use, with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// LLM tokens, input and output together.
    pub max_tokens: u64,
    /// US dollars for LLM calls.
    pub max_cost_usd: f64,
    /// Wall clock from task.received to the end, seconds.
    pub max_time_seconds: u64,
    /// Replans and step retries over the whole task.
    pub max_retries: u64,
}

/// What the task may use; what is missing takes its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetDraft {
    /// US dollars for LLM calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    /// Replans and step retries over the whole task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u64>,
    /// Wall clock from task.received to the end, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_seconds: Option<u64>,
    /// LLM tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
}

/// Check machine criteria.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckAction {
    /// All must hold.
    pub criteria: Vec<MachineCriterion>,
}

/// A machine criterion and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    pub criterion: MachineCriterion,
    pub passed: bool,
    /// What was found, screened.
    pub detail: String,
}

/// Run a pipeline of programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandAction {
    /// Stages wired by pipes without a shell.
    pub pipeline: Vec<Vec<String>>,
    /// Where the last stage's stdout goes instead of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Standard input of the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

/// The target contains a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainsCriterion {
    /// Must occur in the target, byte for byte.
    pub text: String,
    /// Read this workspace file instead of an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Read the recorded stdout of this step instead of the own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// Prose (judged by a model) or a machine criterion (checked by the executor).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Criterion {
    /// Prose.
    Text(String),
    Machine(MachineCriterion),
}

/// A task's criterion and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriterionResult {
    /// The criterion in words.
    pub text: String,
    /// null where nothing judged it.
    pub passed: Option<bool>,
    /// Who judged it.
    pub how: CriterionResultHow,
}

/// Who judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CriterionResultHow {
    Machine,
    Model,
    Unjudged,
}

impl CriterionResultHow {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Model => "model",
            Self::Unjudged => "unjudged",
        }
    }
}

impl fmt::Display for CriterionResultHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// pure: may run any number of times; idempotent: running again changes nothing more; side_effecting: must not run twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    Pure,
    Idempotent,
    SideEffecting,
}

impl Effect {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Idempotent => "idempotent",
            Self::SideEffecting => "side_effecting",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The target equals a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EqualsCriterion {
    /// The whole target, trailing newlines aside.
    pub text: String,
    /// Read this workspace file instead of an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Read the recorded stdout of this step instead of the own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// What went wrong, as a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    InvalidRequest,
    NotFound,
    Conflict,
    Unauthorized,
    Forbidden,
    RateLimited,
    PayloadTooLarge,
    InjectionBlocked,
    PlanningFailed,
    LlmUnavailable,
    BudgetExceeded,
    PolicyDenied,
    CapabilityViolation,
    Replayed,
    StepFailed,
    Timeout,
    OomKilled,
    PidsLimit,
    DiskLimit,
    OutputLimit,
    SandboxViolation,
    SandboxUnavailable,
    UnknownOutcome,
    Cancelled,
    ArmUnavailable,
    InternalError,
}

impl ErrorCode {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::InjectionBlocked => "INJECTION_BLOCKED",
            Self::PlanningFailed => "PLANNING_FAILED",
            Self::LlmUnavailable => "LLM_UNAVAILABLE",
            Self::BudgetExceeded => "BUDGET_EXCEEDED",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::CapabilityViolation => "CAPABILITY_VIOLATION",
            Self::Replayed => "REPLAYED",
            Self::StepFailed => "STEP_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::OomKilled => "OOM_KILLED",
            Self::PidsLimit => "PIDS_LIMIT",
            Self::DiskLimit => "DISK_LIMIT",
            Self::OutputLimit => "OUTPUT_LIMIT",
            Self::SandboxViolation => "SANDBOX_VIOLATION",
            Self::SandboxUnavailable => "SANDBOX_UNAVAILABLE",
            Self::UnknownOutcome => "UNKNOWN_OUTCOME",
            Self::Cancelled => "CANCELLED",
            Self::ArmUnavailable => "ARM_UNAVAILABLE",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The step ends with this exit code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitCodeCriterion {
    /// The exit code that counts as success.
    pub code: u64,
}

/// Change one path of the workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileAction {
    pub op: FileActionOp,
    pub path: WorkspacePath,
    /// Content as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Permission bits in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Content as UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileActionOp {
    Write,
    Append,
    Mkdir,
    Delete,
}

impl FileActionOp {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Append => "append",
            Self::Mkdir => "mkdir",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for FileActionOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of the initial workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    pub path: WorkspacePath,
    pub r#type: FileEntryType,
    /// Content as base64 (files).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Permission bits in octal, e.g. 0644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Modification time, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<u64>,
    /// Where a symlink points, inside the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Content as UTF-8 text (files).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileEntryType {
    File,
    Dir,
    Symlink,
}

impl FileEntryType {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Symlink => "symlink",
        }
    }
}

impl fmt::Display for FileEntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The workspace holds this path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileExistsCriterion {
    pub path: WorkspacePath,
}

/// Where the initial workspace is kept: files are data, not log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesRef {
    /// Object name in the artifact store.
    pub artifact: String,
    /// SHA-256 of the object.
    pub digest: String,
    /// Number of entries.
    pub entries: u64,
    /// Size of the object, bytes.
    pub bytes: u64,
}

/// A sign of prompt injection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// JSON pointer of the field (RFC 6901).
    pub field: String,
    /// Family of the attack.
    pub family: String,
    /// Rule that matched.
    pub rule: String,
    pub severity: FindingSeverity,
    /// First code point, from 0.
    pub start: u64,
    /// One past the last code point.
    pub end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    Low,
    Medium,
    High,
    Critical,
}

impl FindingSeverity {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for FindingSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Make one request, from outside of the sandbox: only to hosts and by methods that the executor's policy names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAction {
    pub method: HttpActionMethod,
    /// Of the form https://host/path, without user and password.
    pub url: String,
    /// Content as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// What is asked for and sent, such as accept and content-type; no credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Map<String, Value>>,
    /// The file that the answer's content goes to, instead of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<WorkspacePath>,
    /// Content as UTF-8 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HttpActionMethod {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpActionMethod {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for HttpActionMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value inside the JSON target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonPathCriterion {
    /// RFC 9535 JSONPath; at least one selected node must equal the value.
    pub query: String,
    /// The value, any JSON.
    pub equals: Value,
    /// Read this workspace file instead of an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Read the recorded stdout of this step instead of the own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// What a step may use, every value filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Cap on stdout and stderr together, bytes.
    pub output_bytes: u64,
}

/// Limits that a caller sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsDraft {
    /// Memory, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Cap on stdout and stderr together, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Wall clock, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

/// A criterion that the executor checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MachineCriterion {
    Contains(ContainsCriterion),
    Equals(EqualsCriterion),
    Regex(RegexCriterion),
    ExitCode(ExitCodeCriterion),
    JsonPath(JsonPathCriterion),
    FileExists(FileExistsCriterion),
}

/// What a step wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    pub stdout: OutputStream,
    pub stderr: OutputStream,
}

/// One output stream of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputStream {
    /// The first bytes, screened: 16 KiB at most before screening.
    pub head: String,
    /// The last bytes where the head did not hold all, screened.
    pub tail: String,
    /// Bytes that the step wrote in all.
    pub bytes: u64,
    /// SHA-256 of all bytes.
    pub digest: String,
    /// Bytes between head and tail were left out.
    pub truncated: bool,
    /// Bytes that are not UTF-8 were replaced by U+FFFD.
    pub lossy: bool,
}

/// A caller's own plan: no model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDraft {
    /// The caller's steps.
    pub steps: Vec<StepDraft>,
}

/// Event (planner): no plan could be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFailed {
    /// Version of the plan, from 1.
    pub plan_version: u64,
    pub code: ErrorCode,
    /// Class of the error.
    pub class: PlanFailureClass,
    /// What happened and what to do next.
    pub message: String,
    /// Trying again may help.
    pub retryable: bool,
    /// Who was asked.
    pub provider: String,
    pub usage: TokenUsage,
    /// Cost so far, millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// The model that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Class of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanFailureClass {
    Unsupported,
    InvalidPlan,
    NotJson,
    Refused,
    Truncated,
    RateLimited,
    Quota,
    Overloaded,
    Timeout,
    Auth,
    Unavailable,
}

impl PlanFailureClass {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::InvalidPlan => "invalid_plan",
            Self::NotJson => "not_json",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::RateLimited => "rate_limited",
            Self::Quota => "quota",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Auth => "auth",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for PlanFailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why it is asked for again. resumed: a person had the task resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanReason {
    Resumed,
}

impl PlanReason {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
        }
    }
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Event (orchestrator): the task still waits for a plan, and the planner is asked for it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequested {
    /// Version that the plan is to have, from 1.
    pub plan_version: u64,
    /// Attempt at this plan, from 2: task.received asks for the first.
    pub attempt: u64,
    /// Why it is asked for again. resumed: a person had the task resumed.
    pub reason: PlanReason,
    /// Who asked: an API principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}

/// The price used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Per million input tokens.
    pub input_micro_usd_per_million: u64,
    /// Per million output tokens.
    pub output_micro_usd_per_million: u64,
}

/// Orders admission only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    Medium,
    High,
    Critical,
}

impl Priority {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One reason of a refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What is wrong and what would be right.
    pub message: String,
    /// JSON pointer of the field (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What was executed, under which conditions, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    pub action: ReceiptAction,
    pub executor: ReceiptExecutor,
    pub inputs: ReceiptInputs,
    pub limits: ReceiptLimits,
    pub outputs: ReceiptOutputs,
    pub policy: ReceiptPolicy,
    pub result: ReceiptResult,
    pub sandbox: ReceiptSandbox,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<ReceiptAttempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ReceiptCommand>,
    /// What the kernel denied the programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denials: Option<Vec<ReceiptDenial>>,
    /// Members left out because the receipt would have been too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peaks: Option<ReceiptPeaks>,
    /// SHA-256 of the RFC 8785 form of the envelope that is the task's receipt before this one; absent in its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Rules that were broken, as in the result, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<Vec<String>>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptAction {
    /// Kind of the action.
    pub kind: String,
    /// SHA-256 of the action's RFC 8785 form, as in the capability.
    pub digest: String,
}

/// The attempt of a task's step; absent for an execution outside a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptAttempt {
    pub task_id: TaskId,
    /// Version of the plan, from 1.
    pub plan_version: u64,
    pub step_id: StepId,
    /// Attempt, from 1.
    pub attempt: u64,
    /// As in the dispatch.
    pub purpose: String,
    /// SHA-256 of the capability's text.
    pub capability: String,
    /// Hash of the event step.dispatched that it answers; absent for a step on the operator's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<String>,
}

/// The programs that the sandbox was asked to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptCommand {
    /// Their paths inside the sandbox, stage by stage.
    pub programs: Vec<String>,
    /// SHA-256 of the RFC 8785 form of the argument vectors.
    pub argv_digest: String,
    /// Names of the environment's variables; their values are never on record.
    pub environment: Vec<String>,
    /// Their argument vectors, stage by stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<Vec<String>>>,
}

/// What the kernel denied the programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptDenial {
    /// What denied it: seccomp, landlock, oom, pids, disk.
    pub kind: String,
    /// A system call, or a limit; never what a program wrote.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// Digests by algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptDigest {
    /// SHA-256 of the result's bytes as they are stored, without the member `receipt`.
    pub sha256: String,
}

/// The executor's signed receipt of an execution: a DSSE envelope, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptEnvelope {
    /// The statement, base64.
    pub payload: String,
    /// The media type of in-toto statements.
    pub payloadType: String,
    /// One signature.
    pub signatures: Vec<ReceiptSignature>,
}

/// What executed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptExecutor {
    /// Version of the executor.
    pub version: String,
    /// Release of the kernel, which the sandbox shares with the host.
    pub kernel: String,
    /// Its architecture.
    pub machine: String,
}

/// What went in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptInputs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<ReceiptStream>,
}

/// What it might use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptLimits {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory of all processes, bytes.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// CPU time of one process, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Bytes of one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Open files of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes of /tmp and of /dev/shm, each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmp_bytes: Option<u64>,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptOutputs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<ReceiptStream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<ReceiptStream>,
}

/// What the programs used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptPeaks {
    /// User and system time of all processes, milliseconds.
    pub cpu_ms: u64,
    /// The most memory at once, bytes, as in the result.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// Processes and threads at once, the sandbox's own two among them; absent where nothing counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes passed to writing calls; absent where nothing counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptPolicy {
    /// SHA-256 of its RFC 8785 form.
    pub digest: String,
    /// Whoever ran it had the policy not asked.
    pub bypassed: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptResult {
    /// Something was started: false for what was refused or denied.
    pub started: bool,
    /// The executor's clock when it ended, RFC 3339.
    pub ended_at: String,
    /// Wall clock, milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of the RFC 8785 form of the result without the member `receipt`: for copies that were formatted anew.
    pub canonical: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// Exit code of the last stage, where it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u64>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u64>,
}

/// What stood between the programs and the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSandbox {
    /// The executor is configured to run steps without Landlock or the filter of system calls where the kernel lacks them.
    pub degraded_allowed: bool,
    /// Layers of isolation that were in force; none where no program was started.
    pub layers: Vec<String>,
    /// What the programs' sandbox lacked; none where no program was started.
    pub gaps: Vec<String>,
    /// SHA-256 of the Landlock ruleset: what it handles, and its rules in the order of their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<String>,
    /// SHA-256 of the filter of system calls: its instructions as the kernel got them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// Root of a Merkle tree over path and digest of the host's files that the programs could see; absent where they saw all programs of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

/// A signature of an envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSignature {
    /// The first 8 bytes of the SHA-256 of the public key, hexadecimal.
    pub keyid: String,
    /// Ed25519 over the pre-authentication encoding, base64.
    pub sig: String,
}

/// An in-toto statement about the result of an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptStatement {
    /// The form of statements.
    pub _type: String,
    pub predicate: Receipt,
    /// The form of the predicate.
    pub predicateType: String,
    /// The result that the receipt vouches for.
    pub subject: Vec<ReceiptSubject>,
}

/// Bytes that went in or came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptStream {
    /// How many.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub digest: String,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSubject {
    /// <task>/<plan version>/<step>/<attempt>; outside a task the id of the execution.
    pub name: String,
    pub digest: ReceiptDigest,
}

/// A value that was replaced before anything was written: its type and place, never the value. Offsets are those of the original text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// JSON pointer of the field (RFC 6901).
    pub field: String,
    /// Kind of value that was replaced.
    pub r#type: String,
    /// What stands there now.
    pub placeholder: String,
    /// First code point, from 0.
    pub start: u64,
    /// One past the last code point.
    pub end: u64,
}

/// A redirection into the workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    pub path: WorkspacePath,
    /// Append instead of replacing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<bool>,
}

/// The target matches a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexCriterion {
    /// A linear-time regular expression (RE2 syntax).
    pub pattern: String,
    /// Read this workspace file instead of an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WorkspacePath>,
    /// Read the recorded stdout of this step instead of the own one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

/// What a step used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceUsage {
    /// Wall clock, milliseconds.
    pub duration_ms: u64,
    /// User and system time of all processes, milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set of one process, bytes.
    pub memory_peak_bytes: u64,
}

/// What a completed task gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Result {
    /// The task's answer: the stdout of the last working step that wrote any.
    pub output: String,
    /// Steps that ended executed.
    pub steps_executed: u64,
    /// From task.received to the deciding event by the broker's clock, milliseconds.
    pub total_duration_ms: u64,
    /// Cost of LLM calls, millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// LLM tokens, input and output together.
    pub tokens: u64,
    /// The task's criteria, one by one.
    pub criteria: Vec<CriterionResult>,
}

/// How often and how soon a failed step is tried again, as far as its effect allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all; 1: never tried again.
    pub max_attempts: u64,
    /// Longest pause before the second attempt, milliseconds; it doubles with every further one, up to 60000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Failures of the step itself that another attempt may mend, besides those of the arm or the sandbox. Not for a side-effecting step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryCause>>,
}

/// Error codes that a step may ask another attempt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RetryCause {
    StepFailed,
    Timeout,
    OomKilled,
}

impl RetryCause {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StepFailed => "STEP_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::OomKilled => "OOM_KILLED",
        }
    }
}

impl fmt::Display for RetryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rules that screened a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// Version of the rules.
    pub version: String,
    /// SHA-256 of the rule files.
    pub digest: String,
}

/// Run a program that the step brings along; only in languages that the executor's policy names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptAction {
    pub lang: ScriptActionLang,
    /// The program's text.
    pub source: String,
    /// Standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptActionLang {
    Bash,
    Python,
}

impl ScriptActionLang {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Python => "python",
        }
    }
}

impl fmt::Display for ScriptActionLang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a submission came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub channel: SourceChannel,
    /// Who submitted: an API principal, or bus for raw publishes.
    pub principal: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceChannel {
    Http,
    Bus,
}

impl SourceChannel {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Bus => "bus",
        }
    }
}

impl fmt::Display for SourceChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a task has used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Steps that ended executed.
    pub steps_executed: u64,
    /// From task.received to the deciding event by the broker's clock, milliseconds.
    pub total_duration_ms: u64,
    /// Cost of LLM calls, millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// LLM tokens, input and output together.
    pub tokens: u64,
}

/// A step as planned, every field filled in but retry, whose absence means the orchestrator's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub id: StepId,
    /// What the step does, for people.
    pub title: String,
    /// The arm that runs it.
    pub arm: String,
    pub action: Action,
    /// Steps that must have succeeded before.
    pub depends_on: Vec<StepId>,
    /// Machine criteria that decide whether the step succeeded.
    pub acceptance: Vec<MachineCriterion>,
    pub effect: Effect,
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Indices of the task's acceptance criteria that this step decides: the k-th by the k-th criterion of its check action, or of its acceptance where it is no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifies: Option<Vec<u64>>,
}

/// Event (orchestrator): this step is to run now. Carries the whole step, so that an arm needs no other event to act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDispatched {
    /// Version of the plan, from 1.
    pub plan_version: u64,
    /// Attempt, from 1.
    pub attempt: u64,
    /// Why it runs.
    pub purpose: StepDispatchedPurpose,
    pub step: Step,
    /// When a silent arm is given up, RFC 3339 in UTC.
    pub deadline: String,
    /// Biscuit, URL-safe base64: proof that the orchestrator granted just this (docs/decisions/0009). No secret: it is good for one use, by the arm that it names, of what this event says.
    pub capability: String,
    /// Digest of the workspace to start from: SHA-256 of its canonical tar archive, kept in ARTIFACTS as workspace/<task>/<digest>. Absent: the files of the task's first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// Why it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepDispatchedPurpose {
    Run,
}

impl StepDispatchedPurpose {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
        }
    }
}

impl fmt::Display for StepDispatchedPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step as a caller writes it; the planner fills in what is missing (arm executor, effect side_effecting, no dependencies, default limits).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDraft {
    pub id: StepId,
    pub action: Action,
    /// Machine criteria that decide whether the step succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Vec<MachineCriterion>>,
    /// The arm that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// Steps that must have succeeded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Vec<StepId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsDraft>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What the step does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Event (executor): a step ran and met its acceptance criteria.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepExecuted {
    /// Version of the plan, from 1.
    pub plan_version: u64,
    pub step_id: StepId,
    /// Attempt, from 1.
    pub attempt: u64,
    /// Exit code of the last stage; 0 for file and check actions.
    pub exit_code: u64,
    pub output: Output,
    /// Verdicts of the acceptance criteria and of a check action.
    pub checks: Vec<CheckResult>,
    pub usage: ResourceUsage,
    /// What it tried and was denied by the sandbox, as far as the kernel tells; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denials: Option<Vec<String>>,
    /// What the step left in its workspace that none holds (sockets, FIFOs, links that lead out, …), each with the reason, screened; the first ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptEnvelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceChange>,
}

/// Event (executor; orchestrator for a silent arm): a step did not succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepFailed {
    /// Version of the plan, from 1.
    pub plan_version: u64,
    pub step_id: StepId,
    /// Attempt, from 1.
    pub attempt: u64,
    pub code: ErrorCode,
    /// What happened and what to do next, screened.
    pub message: String,
    /// Rules that were broken.
    pub violations: Vec<String>,
    /// Verdicts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<CheckResult>>,
    /// Exit code of the last stage, where it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptEnvelope>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUsage>,
}

/// A step's id, unique within its plan.
pub type StepId = String;

/// Command: decide what waits for approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskApprove {
    pub task_id: TaskId,
    pub decision: TaskApproveDecision,
    /// Who asks: an API principal.
    pub requested_by: String,
    /// Why, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskApproveDecision {
    Approve,
    Deny,
}

impl TaskApproveDecision {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for TaskApproveDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Command: stop this task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCancel {
    pub task_id: TaskId,
    /// Who asks: an API principal.
    pub requested_by: String,
    /// Why, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Event (orchestrator): a person wants the task stopped. Running steps are killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCancelRequested {
    /// Who asks: an API principal.
    pub requested_by: String,
    /// Why, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Event (orchestrator): the task was stopped on a person's request. Terminal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCancelled {
    /// Who asks: an API principal.
    pub requested_by: String,
    pub spent: Spent,
    /// Why, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Event (orchestrator): the task reached its goal. Terminal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCompleted {
    pub result: Result,
}

/// Event (orchestrator): the task ended without its goal. Terminal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFailed {
    pub code: ErrorCode,
    /// What happened and what to do next.
    pub message: String,
    pub spent: Spent,
    /// The step that decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<StepId>,
}

/// A task's id: a UUID in lower case.
pub type TaskId = String;

/// Event (planner): the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPlanned {
    /// Version of the plan, from 1.
    pub plan_version: u64,
    /// The steps: a directed acyclic graph.
    pub steps: Vec<Step>,
    /// caller for the caller's own plan, offline for the built-in planner, else the configured name.
    pub provider: String,
    pub usage: TokenUsage,
    /// Cost, millionths of a US dollar; 0 for a local model or where no price is known (then price is absent).
    pub cost_micro_usd: u64,
    /// In thousandths.
    pub confidence: u64,
    /// Times the model was asked to mend its plan.
    pub repairs: u64,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The price used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// SHA-256 of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_digest: Option<String>,
}

/// Event (reflex): a submission passed the screen; the full contract with defaults filled in and PII replaced. The first event of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReceived {
    /// What is to be done, in plain words; not blank.
    pub goal: String,
    /// What must be respected.
    pub constraints: Vec<String>,
    /// Any JSON; 50 KB at most when serialised.
    pub context: Map<String, Value>,
    /// When the task counts as done.
    pub acceptance_criteria: Vec<Criterion>,
    pub budget: Budget,
    pub priority: Priority,
    /// Any JSON for the caller's own use; 8 KB at most.
    pub metadata: Map<String, Value>,
    pub verdict: Verdict,
    pub source: Source,
    /// Keyed digest (HMAC-SHA256) of the submission in canonical form: tells a repeat from a conflict without keeping the text.
    pub submission_digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesRef>,
    /// The caller's own plan; 128 KB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanDraft>,
    /// The finished task that this one retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<TaskId>,
}

/// Event (reflex): a submission was refused. First and last event of its task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRejected {
    pub code: ErrorCode,
    /// What happened and what to do next.
    pub message: String,
    /// Each reason, the submitted text never among them.
    pub reasons: Vec<Reason>,
    pub source: Source,
    /// When to try again, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Keyed digest of the submission, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Command: look at this task again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResume {
    pub task_id: TaskId,
    /// Who asks: an API principal.
    pub requested_by: String,
    /// Why, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Command: do this. Also the body of POST /api/v1/tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSubmit {
    /// What is to be done, in plain words; not blank.
    pub goal: String,
    /// When the task counts as done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance_criteria: Option<Vec<Criterion>>,
    /// What the task may use; what is missing takes its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetDraft>,
    /// What must be respected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// Any JSON; 50 KB at most when serialised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// The initial workspace; inline content 64 KB in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<FileEntry>>,
    /// Any JSON for the caller's own use; 8 KB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// The caller's own plan; 128 KB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanDraft>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The finished task that this one retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<TaskId>,
    /// The client's own id: a UUID; submitting the same task again under it is harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
}

/// Tokens of one or more LLM calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenUsage {
    /// Tokens sent, cached ones included.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
}

/// What the screen said of a submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub ruleset: Ruleset,
    pub decision: VerdictDecision,
    /// Injection score in thousandths.
    pub score: u64,
    /// Signs of prompt injection.
    pub findings: Vec<Finding>,
    /// Values replaced.
    pub redactions: Vec<Redaction>,
    /// More was found than is listed.
    pub truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictDecision {
    Allow,
    Flag,
    Block,
}

impl VerdictDecision {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for VerdictDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a step has made of the task's workspace. Digests are the SHA-256 of the canonical tar archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceChange {
    /// The workspace as the log had it just before this event.
    pub before: String,
    /// The workspace from here on: the one before with what the step has changed. Kept in ARTIFACTS as workspace/<task>/<digest>.
    pub after: String,
}

/// A path relative to the workspace: no leading slash, no empty, '.' or '..' component, no control characters.
pub type WorkspacePath = String;

impl Payload for PlanFailed {
    const KIND: &'static str = "plan.failed";
    const VERSION: u32 = 1;
}

impl Fact for PlanFailed {}

impl Payload for PlanRequested {
    const KIND: &'static str = "plan.requested";
    const VERSION: u32 = 1;
}

impl Fact for PlanRequested {}

impl Payload for StepDispatched {
    const KIND: &'static str = "step.dispatched";
    const VERSION: u32 = 1;
}

impl Fact for StepDispatched {}

impl Payload for StepExecuted {
    const KIND: &'static str = "step.executed";
    const VERSION: u32 = 1;
}

impl Fact for StepExecuted {}

impl Payload for StepFailed {
    const KIND: &'static str = "step.failed";
    const VERSION: u32 = 1;
}

impl Fact for StepFailed {}

impl Payload for TaskApprove {
    const KIND: &'static str = "task.approve";
    const VERSION: u32 = 1;
}

impl Command for TaskApprove {}

impl Payload for TaskCancel {
    const KIND: &'static str = "task.cancel";
    const VERSION: u32 = 1;
}

impl Command for TaskCancel {}

impl Payload for TaskCancelRequested {
    const KIND: &'static str = "task.cancel_requested";
    const VERSION: u32 = 1;
}

impl Fact for TaskCancelRequested {}

impl Payload for TaskCancelled {
    const KIND: &'static str = "task.cancelled";
    const VERSION: u32 = 1;
}

impl Fact for TaskCancelled {}

impl Payload for TaskCompleted {
    const KIND: &'static str = "task.completed";
    const VERSION: u32 = 1;
}

impl Fact for TaskCompleted {}

impl Payload for TaskFailed {
    const KIND: &'static str = "task.failed";
    const VERSION: u32 = 1;
}

impl Fact for TaskFailed {}

impl Payload for TaskPlanned {
    const KIND: &'static str = "task.planned";
    const VERSION: u32 = 1;
}

impl Fact for TaskPlanned {}

impl Payload for TaskReceived {
    const KIND: &'static str = "task.received";
    const VERSION: u32 = 1;
}

impl Fact for TaskReceived {}

impl Payload for TaskRejected {
    const KIND: &'static str = "task.rejected";
    const VERSION: u32 = 1;
}

impl Fact for TaskRejected {}

impl Payload for TaskResume {
    const KIND: &'static str = "task.resume";
    const VERSION: u32 = 1;
}

impl Command for TaskResume {}

impl Payload for TaskSubmit {
    const KIND: &'static str = "task.submit";
    const VERSION: u32 = 1;
}

impl Command for TaskSubmit {}
