"""The rows of the view, as values. JSON columns hold JSON text, so that what is stored is what was encoded."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """How far a task has got. The last four are terminal and never change."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        """Nothing may follow."""
        return self not in (Status.PENDING, Status.IN_PROGRESS)


class Phase(StrEnum):
    """What is being done for a task."""

    SCREENING = "screening"
    PLANNING = "planning"
    AWAITING_APPROVAL = "awaiting_approval"
    EXECUTING = "executing"
    COMPENSATING = "compensating"
    DONE = "done"


class AttemptStatus(StrEnum):
    """How an attempt at a step stands. `abandoned`: its task ended while it ran."""

    RUNNING = "running"
    EXECUTED = "executed"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A task as of its last event. Money is in millionths of a US dollar, durations in milliseconds."""

    task_id: str
    first_seq: int
    last_seq: int
    version: int
    status: Status = Status.PENDING
    phase: Phase = Phase.SCREENING
    goal: str | None = None
    priority: str | None = None
    retry_of: str | None = None
    budget: str | None = None
    metadata: str | None = None
    plan_version: int | None = None
    steps_total: int = 0
    steps_done: int = 0
    running: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None
    reasons: str | None = None
    result: str | None = None
    cost_micro_usd: int = 0
    tokens: int = 0
    duration_ms: int | None = None
    undecodable: int = 0
    created_at: datetime
    updated_at: datetime
    cancel_requested_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One version of a task's plan."""

    task_id: str
    plan_version: int
    seq: int
    provider: str
    model: str | None
    steps: str
    input_tokens: int
    output_tokens: int
    cost_micro_usd: int
    confidence: int
    repairs: int
    planned_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """What one event says about an attempt at a step; absent fields are told by another event."""

    task_id: str
    plan_version: int
    step_id: str
    attempt: int
    seq: int
    status: AttemptStatus
    title: str | None = None
    arm: str | None = None
    effect: str | None = None
    action: str | None = None
    dispatched_at: datetime | None = None
    deadline: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    code: str | None = None
    message: str | None = None
    violations: str | None = None
    output: str | None = None
    checks: str | None = None
    usage: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A stored message: `payload` is its body as text, or `raw` its bytes with the reason in `undecodable`."""

    seq: int
    task_id: str
    version: int | None
    kind: str
    id: str | None
    causation_id: str | None
    source: str | None
    stored_at: datetime
    hash: str
    headers: str
    payload: str | None
    raw: bytes | None
    bytes: int
    undecodable: str | None
