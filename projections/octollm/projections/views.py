"""What the REST view answers, as types: the responses are encoded from them, the OpenAPI document describes them.

Documents that are on record (a result, a plan's steps, a payload) are `Raw`: their JSON passes through as written.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from octollm.events.carrier import ErrorCode
from octollm.projections.rows import AttemptStatus, Phase, Status


def _recorded(reference: str) -> Meta:
    return Meta(extra_json_schema={"$ref": f"#/components/schemas/{reference}"})


def _list_of(reference: str) -> Meta:
    return Meta(extra_json_schema={"type": "array", "items": {"$ref": f"#/components/schemas/{reference}"}})


_OBJECT = Meta(extra_json_schema={"type": "object"})

MicroUsd = Annotated[int, Meta(description="Millionths of a US dollar.")]
Usd = Annotated[float, Meta(description="US dollars.")]
Milliseconds = Annotated[int, Meta(description="Milliseconds.")]
Seq = Annotated[int, Meta(description="Sequence in the event log.")]
Time = Annotated[datetime, Meta(tz=True)]
Cursor = Annotated[str, Meta(description="Give it as `cursor` to get the next page; null on the last one.")]


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How far the plan in force has got."""

    total: int
    done: int
    running: Annotated[list[str], Meta(description="`<plan version>/<step>/<attempt>` of each attempt under way.")]


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task was rejected, failed or was cancelled."""

    code: ErrorCode
    message: str
    hint: Annotated[str, Meta(description="What to do next.")]
    reasons: Annotated[Raw, _list_of("Reason")]


class TaskItem(msgspec.Struct, frozen=True, kw_only=True):
    """A task in a list, as of its last event. All times are the broker's."""

    task_id: str
    status: Status
    phase: Phase
    goal: Annotated[str | None, Meta(description="PII replaced; null where the submission was rejected.")]
    priority: str | None
    retry_of: str | None
    error: TaskError | None
    plan_version: int | None
    steps: StepSummary
    cost_usd: Usd
    cost_micro_usd: MicroUsd
    tokens: Annotated[int, Meta(description="LLM tokens, input and output together.")]
    duration_ms: Milliseconds | None
    version: Annotated[int, Meta(description="Events of this task so far.")]
    last_seq: Seq
    undecodable: Annotated[int, Meta(description="Events that this version can't read; 0 is as it should be.")]
    created_at: Time
    updated_at: Time
    cancel_requested_at: Time | None
    finished_at: Time | None


class TaskView(TaskItem, frozen=True, kw_only=True):
    """A task as of its last event. All times are the broker's."""

    budget: Annotated[Raw, _recorded("Budget")] | None
    metadata: Annotated[Raw, _OBJECT] | None
    result: Annotated[Raw, _recorded("Result")] | None


class TaskPage(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks, newest first."""

    tasks: list[TaskItem]
    next_cursor: Cursor | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a step: what was asked of which arm, and how it ended."""

    plan_version: int
    step_id: str
    attempt: int
    status: AttemptStatus
    title: str | None
    arm: str | None
    effect: str | None
    action: Annotated[Raw, _recorded("Action")] | None
    exit_code: int | None
    signal: int | None
    error: TaskError | None
    violations: Annotated[Raw, Meta(extra_json_schema={"type": "array", "items": {"type": "string"}})] | None
    output: Annotated[Raw, _recorded("Output")] | None
    checks: Annotated[Raw, _list_of("CheckResult")] | None
    usage: Annotated[Raw, _recorded("ResourceUsage")] | None
    deadline: str | None
    dispatched_at: Time | None
    ended_at: Time | None
    seq: Seq


class AttemptPage(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts in the order in which they began."""

    task_id: str
    steps: list[AttemptView]
    next_cursor: Cursor | None


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a task's plan, and what it cost to make."""

    task_id: str
    plan_version: int
    provider: Annotated[str, Meta(description="`caller` for the caller's own plan.")]
    model: str | None
    steps: Annotated[Raw, _list_of("Step")]
    input_tokens: int
    output_tokens: int
    cost_usd: Usd
    cost_micro_usd: MicroUsd
    confidence: Annotated[int, Meta(description="Thousandths.")]
    repairs: int
    planned_at: Time
    seq: Seq


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is stored. `hash` is what the task's next event names as `ce-prevhash`."""

    seq: Seq
    version: int | None
    kind: str
    id: str | None
    causation_id: str | None
    source: str | None
    stored_at: Time
    hash: str
    headers: Annotated[Raw, _OBJECT]
    payload: Annotated[Raw, Meta(description="As it was written; null where it could not be read.")] | None
    raw: Annotated[bytes, Meta(description="The body in base64, where it could not be read.")] | None
    undecodable: Annotated[str, Meta(description="Why it could not be read.")] | None


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """A task's events in order."""

    task_id: str
    events: list[EventView]
    next_cursor: Cursor | None


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A broken field of a request."""

    pointer: Annotated[str, Meta(description="JSON pointer (RFC 6901).")]
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457), with a code of the one list."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    hint: str
    task_id: str | None = None
    errors: list[FieldProblem] | None = None
    projected_seq: Annotated[int, Meta(description="How far the view had got when it gave up.")] | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Reflex's answer to a submission that is now on record."""

    task_id: str
    seq: Seq
    status: Status


class CancelAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """Reflex's answer to a cancel that is now waiting for the orchestrator: the task's events say what became of it."""

    task_id: str
    status: Literal["cancel_requested"]


class ResumeAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """Reflex's answer to a resume that is now waiting for the orchestrator, which reads the task again."""

    task_id: str
    status: Literal["resume_requested"]


ANSWERS = (TaskView, TaskPage, AttemptPage, PlanView, EventPage, Problem, Accepted, CancelAccepted, ResumeAccepted)
