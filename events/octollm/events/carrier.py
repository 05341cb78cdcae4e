"""Carrier types, generated from events/schemas by events/carriers.py: do not edit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from octollm.events.payload import Payload

TaskId: TypeAlias = Annotated[str, Meta(description="A task's id: a UUID in lower case.", title="TaskId")]


StepId: TypeAlias = Annotated[str, Meta(description="A step's id, unique within its plan.", title="StepId")]


WorkspacePath: TypeAlias = Annotated[
    str,
    Meta(
        description="A path relative to the workspace: no leading slash, no empty, '.' or '..' component, no control characters.",
        title="WorkspacePath",
    ),
]


class Priority(StrEnum):
    """
    Orders admission only.
    """

    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"


class Budget(Payload, frozen=True, kw_only=True):
    """
    What a task may use, with every default filled in.
    """

    max_tokens: int
    max_cost_usd: float
    max_time_seconds: int
    max_retries: int


class ContainsCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="contains"):
    """
    The target contains a text.
    """

    text: str
    path: WorkspacePath | UnsetType = UNSET
    step: StepId | UnsetType = UNSET


class EqualsCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="equals"):
    """
    The target equals a text.
    """

    text: str
    path: WorkspacePath | UnsetType = UNSET
    step: StepId | UnsetType = UNSET


class RegexCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="regex"):
    """
    The target matches a pattern.
    """

    pattern: str
    path: WorkspacePath | UnsetType = UNSET
    step: StepId | UnsetType = UNSET


class ExitCodeCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="exit_code"):
    """
    The step ends with this exit code.
    """

    code: int


class JsonPathCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="json_path"):
    """
    A value inside the JSON target.
    """

    query: str
    equals: Any
    path: WorkspacePath | UnsetType = UNSET
    step: StepId | UnsetType = UNSET


class FileExistsCriterion(Payload, frozen=True, kw_only=True, tag_field="kind", tag="file_exists"):
    """
    The workspace holds this path.
    """

    path: WorkspacePath


MachineCriterion: TypeAlias = Annotated[
    ContainsCriterion | EqualsCriterion | RegexCriterion | ExitCodeCriterion | JsonPathCriterion | FileExistsCriterion,
    Meta(description="A criterion that the executor checks.", title="MachineCriterion"),
]


Criterion: TypeAlias = Annotated[
    str | MachineCriterion,
    Meta(
        description="Prose (judged by a model) or a machine criterion (checked by the executor).",
        title="Criterion",
    ),
]


class Type(StrEnum):
    file = "file"
    dir = "dir"
    symlink = "symlink"


class FileEntry(Payload, frozen=True, kw_only=True):
    """
    One entry of the initial workspace.
    """

    path: WorkspacePath
    type: Type
    mode: str | UnsetType = UNSET
    mtime: int | UnsetType = UNSET
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    target: str | UnsetType = UNSET


class FilesRef(Payload, frozen=True, kw_only=True):
    """
    Where the initial workspace is kept: files are data, not log.
    """

    artifact: str
    digest: str
    entries: int
    bytes: int


class ErrorCode(StrEnum):
    """
    What went wrong, as a closed set.
    """

    INVALID_REQUEST = "INVALID_REQUEST"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    INJECTION_BLOCKED = "INJECTION_BLOCKED"
    PLANNING_FAILED = "PLANNING_FAILED"
    LLM_UNAVAILABLE = "LLM_UNAVAILABLE"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    POLICY_DENIED = "POLICY_DENIED"
    CAPABILITY_VIOLATION = "CAPABILITY_VIOLATION"
    REPLAYED = "REPLAYED"
    STEP_FAILED = "STEP_FAILED"
    TIMEOUT = "TIMEOUT"
    OOM_KILLED = "OOM_KILLED"
    PIDS_LIMIT = "PIDS_LIMIT"
    DISK_LIMIT = "DISK_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    SANDBOX_VIOLATION = "SANDBOX_VIOLATION"
    SANDBOX_UNAVAILABLE = "SANDBOX_UNAVAILABLE"
    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
    CANCELLED = "CANCELLED"
    ARM_UNAVAILABLE = "ARM_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Redirect(Payload, frozen=True, kw_only=True):
    """
    A redirection into the workspace.
    """

    path: WorkspacePath
    append: bool | UnsetType = UNSET


class Op(StrEnum):
    write = "write"
    append = "append"
    mkdir = "mkdir"
    delete = "delete"


class FileAction(Payload, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """
    Change one path of the workspace.
    """

    op: Op
    path: WorkspacePath
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    mode: str | UnsetType = UNSET


class Method(StrEnum):
    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class HttpAction(Payload, frozen=True, kw_only=True, tag_field="kind", tag="http"):
    """
    Make one request, from outside of the sandbox: only to hosts and by methods that the executor's policy names.
    """

    method: Method
    url: str
    headers: Annotated[dict[str, str], Meta(max_length=32)] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    save: WorkspacePath | UnsetType = UNSET


class Lang(StrEnum):
    bash = "bash"
    python = "python"


class ScriptAction(Payload, frozen=True, kw_only=True, tag_field="kind", tag="script"):
    """
    Run a program that the step brings along; only in languages that the executor's policy names.
    """

    lang: Lang
    source: str
    stdin: str | UnsetType = UNSET


class CheckAction(Payload, frozen=True, kw_only=True, tag_field="kind", tag="check"):
    """
    Check machine criteria.
    """

    criteria: list[MachineCriterion]


class Effect(StrEnum):
    """
    pure: may run any number of times; idempotent: running again changes nothing more; side_effecting: must not run twice.
    """

    pure = "pure"
    idempotent = "idempotent"
    side_effecting = "side_effecting"


class Limits(Payload, frozen=True, kw_only=True):
    """
    What a step may use, every value filled in.
    """

    wall_ms: int
    memory_bytes: int
    output_bytes: int


class LimitsDraft(Payload, frozen=True, kw_only=True):
    """
    Limits that a caller sets.
    """

    wall_ms: int | UnsetType = UNSET
    memory_bytes: int | UnsetType = UNSET
    output_bytes: int | UnsetType = UNSET


class RetryCause(StrEnum):
    """
    Error codes that a step may ask another attempt for.
    """

    STEP_FAILED = "STEP_FAILED"
    TIMEOUT = "TIMEOUT"
    OOM_KILLED = "OOM_KILLED"


class PlanFailureClass(StrEnum):
    unsupported = "unsupported"
    invalid_plan = "invalid_plan"
    not_json = "not_json"
    refused = "refused"
    truncated = "truncated"
    rate_limited = "rate_limited"
    quota = "quota"
    overloaded = "overloaded"
    timeout = "timeout"
    auth = "auth"
    unavailable = "unavailable"


class PlanReason(StrEnum):
    resumed = "resumed"


class PlanRequested(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): the task still waits for a plan, and the planner is asked for it again.
    """

    plan_version: int
    attempt: int
    reason: Annotated[PlanReason, Meta(title="PlanReason")]
    requested_by: str | UnsetType = UNSET


class ReceiptSignature(Payload, frozen=True, kw_only=True):
    """
    A signature of an envelope.
    """

    keyid: str
    sig: str


class ReceiptDigest(Payload, frozen=True, kw_only=True):
    """
    Digests by algorithm.
    """

    sha256: str


class ReceiptAttempt(Payload, frozen=True, kw_only=True):
    """
    The attempt of a task's step; absent for an execution outside a task.
    """

    task_id: TaskId
    plan_version: int
    step_id: StepId
    attempt: int
    purpose: str
    capability: str
    dispatch: str | UnsetType = UNSET


class ReceiptExecutor(Payload, frozen=True, kw_only=True):
    """
    What executed it.
    """

    version: str
    kernel: str
    machine: str


class ReceiptPolicy(Payload, frozen=True, kw_only=True):
    """
    The policy in force.
    """

    digest: str
    bypassed: bool


class ReceiptAction(Payload, frozen=True, kw_only=True):
    """
    What was asked for.
    """

    kind: str
    digest: str


class ReceiptCommand(Payload, frozen=True, kw_only=True):
    """
    The programs that the sandbox was asked to start.
    """

    programs: list[str]
    argv_digest: str
    environment: list[str]
    argv: list[list[str]] | UnsetType = UNSET


class ReceiptStream(Payload, frozen=True, kw_only=True):
    """
    Bytes that went in or came out.
    """

    bytes: int
    digest: str


class ReceiptInputs(Payload, frozen=True, kw_only=True):
    """
    What went in.
    """

    stdin: ReceiptStream | UnsetType = UNSET


class ReceiptSandbox(Payload, frozen=True, kw_only=True):
    """
    What stood between the programs and the host.
    """

    degraded_allowed: bool
    layers: list[str]
    gaps: list[str]
    seccomp: str | UnsetType = UNSET
    landlock: str | UnsetType = UNSET
    view: str | UnsetType = UNSET


class ReceiptLimits(Payload, frozen=True, kw_only=True):
    """
    What it might use.
    """

    wall_ms: int
    memory_bytes: int
    output_bytes: int
    cpu_seconds: int | UnsetType = UNSET
    processes: int | UnsetType = UNSET
    open_files: int | UnsetType = UNSET
    file_bytes: int | UnsetType = UNSET
    tmp_bytes: int | UnsetType = UNSET


class ReceiptPeaks(Payload, frozen=True, kw_only=True):
    """
    What the programs used.
    """

    cpu_ms: int
    memory_bytes: int
    output_bytes: int
    processes: int | UnsetType = UNSET
    written_bytes: int | UnsetType = UNSET


class ReceiptResult(Payload, frozen=True, kw_only=True):
    """
    What came of it.
    """

    started: bool
    ended_at: str
    duration_ms: int
    canonical: str
    code: ErrorCode | UnsetType = UNSET
    exit_code: int | UnsetType = UNSET
    signal: int | UnsetType = UNSET


class ReceiptOutputs(Payload, frozen=True, kw_only=True):
    """
    What came out.
    """

    stdout: ReceiptStream | UnsetType = UNSET
    stderr: ReceiptStream | UnsetType = UNSET


class ReceiptDenial(Payload, frozen=True, kw_only=True):
    """
    What the kernel denied the programs.
    """

    kind: str
    detail: str
    count: int


class OutputStream(Payload, frozen=True, kw_only=True):
    """
    One output stream of a step.
    """

    head: str
    tail: str
    bytes: int
    digest: str
    truncated: bool
    lossy: bool


class Output(Payload, frozen=True, kw_only=True):
    """
    What a step wrote.
    """

    stdout: OutputStream
    stderr: OutputStream


class ResourceUsage(Payload, frozen=True, kw_only=True):
    """
    What a step used.
    """

    duration_ms: int
    cpu_ms: int
    memory_peak_bytes: int


class CheckResult(Payload, frozen=True, kw_only=True):
    """
    A machine criterion and its verdict.
    """

    criterion: MachineCriterion
    passed: bool
    detail: str


class TokenUsage(Payload, frozen=True, kw_only=True):
    """
    Tokens of one or more LLM calls.
    """

    input_tokens: int
    output_tokens: int


class Ruleset(Payload, frozen=True, kw_only=True):
    """
    The rules that screened a text.
    """

    version: str
    digest: str


class Severity(StrEnum):
    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"


class Finding(Payload, frozen=True, kw_only=True):
    """
    A sign of prompt injection.
    """

    field_: str = field(name="field")
    family: str
    rule: str
    severity: Severity
    start: int
    end: int


class Redaction(Payload, frozen=True, kw_only=True):
    """
    A value that was replaced before anything was written: its type and place, never the value. Offsets are those of the original text.
    """

    field_: str = field(name="field")
    type: str
    placeholder: str
    start: int
    end: int


class Decision(StrEnum):
    allow = "allow"
    flag = "flag"
    block = "block"


class Verdict(Payload, frozen=True, kw_only=True):
    """
    What the screen said of a submission.
    """

    ruleset: Ruleset
    decision: Decision
    score: int
    findings: list[Finding]
    redactions: list[Redaction]
    truncated: bool


class Channel(StrEnum):
    http = "http"
    bus = "bus"


class Source(Payload, frozen=True, kw_only=True):
    """
    Where a submission came from.
    """

    channel: Channel
    principal: str


class Reason(Payload, frozen=True, kw_only=True):
    """
    One reason of a refusal.
    """

    message: str
    field_: str | UnsetType = field(name="field", default=UNSET)


class How(StrEnum):
    machine = "machine"
    model = "model"
    unjudged = "unjudged"


class CriterionResult(Payload, frozen=True, kw_only=True):
    """
    A task's criterion and its verdict.
    """

    text: str
    passed: bool | None
    how: How


class Spent(Payload, frozen=True, kw_only=True):
    """
    What a task has used.
    """

    steps_executed: int
    total_duration_ms: int
    cost_micro_usd: int
    tokens: int


class Result(Payload, frozen=True, kw_only=True):
    """
    What a completed task gives.
    """

    output: str
    steps_executed: int
    total_duration_ms: int
    cost_micro_usd: int
    tokens: int
    criteria: list[CriterionResult]


class WorkspaceChange(Payload, frozen=True, kw_only=True):
    """
    What a step has made of the task's workspace. Digests are the SHA-256 of the canonical tar archive.
    """

    before: str
    after: str


class Purpose(StrEnum):
    run = "run"


class Decision1(StrEnum):
    approve = "approve"
    deny = "deny"


class TaskApprove(Payload, frozen=True, kw_only=True):
    """
    Command: decide what waits for approval.
    """

    task_id: TaskId
    decision: Decision1
    requested_by: str
    note: str | UnsetType = UNSET


class TaskCancel(Payload, frozen=True, kw_only=True):
    """
    Command: stop this task.
    """

    task_id: TaskId
    requested_by: str
    reason: str | UnsetType = UNSET


class TaskCancelRequested(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): a person wants the task stopped. Running steps are killed.
    """

    requested_by: str
    reason: str | UnsetType = UNSET


class TaskCancelled(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): the task was stopped on a person's request. Terminal.
    """

    requested_by: str
    spent: Spent
    reason: str | UnsetType = UNSET


class TaskCompleted(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): the task reached its goal. Terminal.
    """

    result: Result


class TaskFailed(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): the task ended without its goal. Terminal.
    """

    code: ErrorCode
    message: str
    spent: Spent
    step_id: StepId | UnsetType = UNSET


class Price(Payload, frozen=True, kw_only=True):
    input_micro_usd_per_million: int
    output_micro_usd_per_million: int


class TaskRejected(Payload, frozen=True, kw_only=True):
    """
    Event (reflex): a submission was refused. First and last event of its task.
    """

    code: ErrorCode
    message: str
    reasons: list[Reason]
    source: Source
    retry_after_ms: int | UnsetType = UNSET
    verdict: Verdict | UnsetType = UNSET
    submission_digest: str | UnsetType = UNSET


class TaskResume(Payload, frozen=True, kw_only=True):
    """
    Command: look at this task again.
    """

    task_id: TaskId
    requested_by: str
    note: str | UnsetType = UNSET


class BudgetDraft(Payload, frozen=True, kw_only=True):
    max_tokens: int | UnsetType = UNSET
    max_cost_usd: float | UnsetType = UNSET
    max_time_seconds: int | UnsetType = UNSET
    max_retries: int | UnsetType = UNSET


class CommandAction(Payload, frozen=True, kw_only=True, tag_field="kind", tag="command"):
    """
    Run a pipeline of programs.
    """

    pipeline: list[list[str]]
    stdin: str | UnsetType = UNSET
    redirect: Redirect | UnsetType = UNSET


Action: TypeAlias = Annotated[
    CommandAction | FileAction | HttpAction | ScriptAction | CheckAction,
    Meta(description="What a step does.", title="Action"),
]


class Retry(Payload, frozen=True, kw_only=True):
    """
    How often and how soon a failed step is tried again, as far as its effect allows.
    """

    max_attempts: int
    backoff_ms: int | UnsetType = UNSET
    on: list[RetryCause] | UnsetType = UNSET


class Step(Payload, frozen=True, kw_only=True):
    """
    A step as planned, every field filled in but retry, whose absence means the orchestrator's defaults.
    """

    id: StepId
    title: str
    arm: str
    action: Action
    depends_on: list[StepId]
    acceptance: list[MachineCriterion]
    effect: Effect
    limits: Limits
    retry: Retry | UnsetType = UNSET
    verifies: list[int] | UnsetType = UNSET


class StepDraft(Payload, frozen=True, kw_only=True):
    """
    A step as a caller writes it; the planner fills in what is missing (arm executor, effect side_effecting, no dependencies, default limits).
    """

    id: StepId
    action: Action
    title: str | UnsetType = UNSET
    arm: str | UnsetType = UNSET
    depends_on: list[StepId] | UnsetType = UNSET
    acceptance: list[MachineCriterion] | UnsetType = UNSET
    effect: Effect | UnsetType = UNSET
    limits: LimitsDraft | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET


class PlanDraft(Payload, frozen=True, kw_only=True):
    """
    A caller's own plan: no model is asked.
    """

    steps: list[StepDraft]


class PlanFailed(Payload, frozen=True, kw_only=True):
    """
    Event (planner): no plan could be made.
    """

    plan_version: int
    code: ErrorCode
    class_: Annotated[PlanFailureClass, Meta(title="PlanFailureClass")] = field(name="class")
    message: str
    retryable: bool
    provider: str
    usage: TokenUsage
    cost_micro_usd: int
    model: str | UnsetType = UNSET


class ReceiptEnvelope(Payload, frozen=True, kw_only=True):
    """
    The executor's signed receipt of an execution: a DSSE envelope, version 1.
    """

    payload: str
    payloadType: str
    signatures: list[ReceiptSignature]


class ReceiptSubject(Payload, frozen=True, kw_only=True):
    """
    A result.
    """

    name: str
    digest: ReceiptDigest


class Receipt(Payload, frozen=True, kw_only=True):
    """
    What was executed, under which conditions, and what came of it.
    """

    executor: ReceiptExecutor
    policy: ReceiptPolicy
    action: ReceiptAction
    inputs: ReceiptInputs
    sandbox: ReceiptSandbox
    limits: ReceiptLimits
    result: ReceiptResult
    outputs: ReceiptOutputs
    attempt: ReceiptAttempt | UnsetType = UNSET
    previous: str | UnsetType = UNSET
    command: ReceiptCommand | UnsetType = UNSET
    peaks: ReceiptPeaks | UnsetType = UNSET
    violations: list[str] | UnsetType = UNSET
    omitted: list[str] | UnsetType = UNSET
    denials: list[ReceiptDenial] | UnsetType = UNSET


class StepDispatched(Payload, frozen=True, kw_only=True):
    """
    Event (orchestrator): this step is to run now. Carries the whole step, so that an arm needs no other event to act.
    """

    plan_version: int
    attempt: int
    purpose: Purpose
    step: Step
    deadline: str
    capability: str
    workspace: str | UnsetType = UNSET


class StepExecuted(Payload, frozen=True, kw_only=True):
    """
    Event (executor): a step ran and met its acceptance criteria.
    """

    plan_version: int
    step_id: StepId
    attempt: int
    exit_code: int
    output: Output
    checks: list[CheckResult]
    usage: ResourceUsage
    denials: list[str] | UnsetType = UNSET
    receipt: ReceiptEnvelope | UnsetType = UNSET
    workspace: WorkspaceChange | UnsetType = UNSET
    left_out: list[str] | UnsetType = UNSET


class StepFailed(Payload, frozen=True, kw_only=True):
    """
    Event (executor; orchestrator for a silent arm): a step did not succeed.
    """

    plan_version: int
    step_id: StepId
    attempt: int
    code: ErrorCode
    message: str
    violations: list[str]
    exit_code: int | UnsetType = UNSET
    signal: int | UnsetType = UNSET
    output: Output | UnsetType = UNSET
    checks: list[CheckResult] | UnsetType = UNSET
    usage: ResourceUsage | UnsetType = UNSET
    receipt: ReceiptEnvelope | UnsetType = UNSET


class TaskPlanned(Payload, frozen=True, kw_only=True):
    """
    Event (planner): the plan.
    """

    plan_version: int
    steps: list[Step]
    provider: str
    usage: TokenUsage
    cost_micro_usd: int
    confidence: int
    repairs: int
    model: str | UnsetType = UNSET
    prompt_digest: str | UnsetType = UNSET
    price: Annotated[Price, Meta(title="Price")] | UnsetType = UNSET


class TaskReceived(Payload, frozen=True, kw_only=True):
    """
    Event (reflex): a submission passed the screen; the full contract with defaults filled in and PII replaced. The first event of a task.
    """

    goal: str
    constraints: list[str]
    context: dict[str, Any]
    acceptance_criteria: list[Criterion]
    priority: Priority
    metadata: dict[str, Any]
    budget: Budget
    verdict: Verdict
    source: Source
    submission_digest: str
    retry_of: TaskId | UnsetType = UNSET
    plan: PlanDraft | UnsetType = UNSET
    files: FilesRef | UnsetType = UNSET


class TaskSubmit(Payload, frozen=True, kw_only=True):
    """
    Command: do this. Also the body of POST /api/v1/tasks.
    """

    goal: str
    constraints: list[str] | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET
    acceptance_criteria: list[Criterion] | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    retry_of: TaskId | UnsetType = UNSET
    plan: PlanDraft | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    budget: Annotated[BudgetDraft, Meta(title="BudgetDraft")] | UnsetType = UNSET
    task_id: str | UnsetType = UNSET
    files: list[FileEntry] | UnsetType = UNSET


class ReceiptStatement(Payload, frozen=True, kw_only=True):
    """
    An in-toto statement about the result of an execution.
    """

    field_type: str = field(name="_type")
    subject: list[ReceiptSubject]
    predicateType: str
    predicate: Receipt
