"""What the saga knows of a task: the fold of its events, as one immutable value per phase.

    New ──task.received──► Planning ──task.planned──► Executing ──┐
     │                        └──────plan.failed────► Unplanned ──┼──terminal event──► Ended
     └──task.rejected─────────────────────────────────────────────┘

Every time in here is the broker's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter

from octollm.events.carrier import Criterion, ErrorCode, Step, TaskPlanned
from octollm.events.envelope import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The part of task.received that decisions need.

    received_id: the event's id. deadline: when the time budget (seconds) is used up. max_retries: of all steps
    together. traceparent: the task's trace.
    """

    received_id: str
    received_at: datetime
    deadline: datetime
    time_budget: int
    max_retries: int
    criteria: tuple[Criterion, ...]
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What LLM calls have used: millionths of a US dollar, and tokens in and out together."""

    cost_micro_usd: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """A person wants the task stopped."""

    requested_by: str
    reason: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not dispatched yet."""


@dataclass(frozen=True, slots=True)
class Running:
    """Dispatched by event `event_id` at `since`, and not settled."""

    attempt: int
    event_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Executed:
    """Succeeded; `version` is the task version of the event that says so."""

    event_id: str
    version: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that did not succeed; whether another follows is `retry`'s to say.

    `version` is the task version of the event that says so.
    """

    attempt: int
    code: ErrorCode
    message: str
    event_id: str
    version: int
    at: datetime


StepState = Waiting | Running | Executed | Failed

WAITING = Waiting()

CUT = "\n[…]\n"
"""Stands in an answer where output was left out."""


class BrokenPlan(ValueError):
    """A plan that can't be carried out: its steps are not a directed acyclic graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in the planner's order; always a directed acyclic graph over unique ids."""

    version: int
    steps: tuple[Step, ...]
    index: Mapping[str, int]
    event_id: str
    at: datetime

    @classmethod
    def of(cls, planned: TaskPlanned, event_id: str, at: datetime) -> "Plan":
        """Raises BrokenPlan: a plan from the log is not trusted to be one that can end."""
        index = {step.id: place for place, step in enumerate(planned.steps)}
        if len(index) < len(planned.steps):
            raise BrokenPlan("two steps of the plan have the same id")
        for step in planned.steps:
            unknown = [name for name in step.depends_on if name not in index]
            if unknown:
                raise BrokenPlan(f"step {step.id} depends on {unknown[0]}, which the plan does not have")
        try:
            TopologicalSorter({step.id: step.depends_on for step in planned.steps}).prepare()
        except CycleError as error:
            raise BrokenPlan(f"steps of the plan wait for each other: {' → '.join(error.args[1])}") from error
        return cls(version=planned.plan_version, steps=tuple(planned.steps), index=index, event_id=event_id, at=at)


@dataclass(frozen=True, slots=True)
class Answer:
    """The output of the last command step, in plan order (`place`), that wrote any."""

    place: int
    text: str


@dataclass(frozen=True, slots=True)
class New:
    """Nothing on record that makes it a task."""

    position: Position = Position.START


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What every phase between task.received and the terminal event has.

    at: time of the latest event that applied. cause: id of the latest event that asked for a decision, which is what
    a terminal event answers.
    """

    position: Position
    contract: Contract
    at: datetime
    cause: str
    cancel: Cancel | None = None
    ledger: Ledger = Ledger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning(Open):
    """Waiting for a plan, which was last asked for by the event of task version `asked`, for the `attempt`-th time."""

    attempt: int = 1
    asked: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplanned(Open):
    """No plan could be made."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Executing(Open):
    """Steps run. `steps` follow the plan's order; `verdicts` the contract's criteria, None while nothing judged one.

    retries: attempts dispatched beyond the first of each step.
    workspace: digest of the task's workspace, None while it is the files of the first event.
    """

    plan: Plan
    steps: tuple[StepState, ...]
    verdicts: tuple[bool | None, ...]
    answer: Answer | None = None
    retries: int = 0
    workspace: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A terminal event is on record: nothing changes any more. `outcome`: completed, failed, cancelled or rejected."""

    position: Position
    outcome: str


State = New | Planning | Unplanned | Executing | Ended
