"""Tasks as they are told by events: payloads, single events for the pure fold, and whole tasks in a real log."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from octollm.events import schema
from octollm.events.carrier import (
    ErrorCode,
    PlanFailed,
    PlanRequested,
    Spent,
    Step,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskFailed,
    TaskPlanned,
    TaskReceived,
    TaskRejected,
)
from octollm.events.direct import Stored
from octollm.events.envelope import Event, NewEvent, Position, envelope
from octollm.events.log import Log
from octollm.events.payload import Payload

P = TypeVar("P", bound=Payload)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPENT = Spent(steps_executed=1, total_duration_ms=48, cost_micro_usd=1500, tokens=30)


def example(kind: str, carrier: type[P]) -> P:
    """The first example of a schema."""
    return msgspec.convert(schema.documents()[kind]["examples"][0], carrier)


def received(**changes: Any) -> TaskReceived:
    return msgspec.structs.replace(example("task.received", TaskReceived), **changes)


def rejected(**changes: Any) -> TaskRejected:
    return msgspec.structs.replace(example("task.rejected", TaskRejected), **changes)


def step(step_id: str) -> Step:
    return msgspec.structs.replace(example("task.planned", TaskPlanned).steps[0], id=step_id)


def planned(*step_ids: str, version: int = 1, **changes: Any) -> TaskPlanned:
    steps = [step(step_id) for step_id in step_ids]
    return msgspec.structs.replace(example("task.planned", TaskPlanned), steps=steps, plan_version=version, **changes)


def plan_failed(**changes: Any) -> PlanFailed:
    return msgspec.structs.replace(example("plan.failed", PlanFailed), **changes)


def plan_requested(**changes: Any) -> PlanRequested:
    return msgspec.structs.replace(example("plan.requested", PlanRequested), **changes)


def dispatched(step_id: str, attempt: int = 1, version: int = 1) -> StepDispatched:
    return msgspec.structs.replace(
        example("step.dispatched", StepDispatched), step=step(step_id), attempt=attempt, plan_version=version
    )


def executed(step_id: str, attempt: int = 1, version: int = 1, stdout: str = "hello world\n") -> StepExecuted:
    ended = example("step.executed", StepExecuted)
    stream = msgspec.structs.replace(ended.output.stdout, head=stdout)
    output = msgspec.structs.replace(ended.output, stdout=stream)
    return msgspec.structs.replace(ended, step_id=step_id, attempt=attempt, plan_version=version, output=output)


def step_failed(step_id: str, attempt: int = 1, version: int = 1, **changes: Any) -> StepFailed:
    ended = example("step.failed", StepFailed)
    return msgspec.structs.replace(ended, step_id=step_id, attempt=attempt, plan_version=version, **changes)


def completed(**changes: Any) -> TaskCompleted:
    ended = example("task.completed", TaskCompleted)
    return msgspec.structs.replace(ended, result=msgspec.structs.replace(ended.result, **changes))


def failed(code: ErrorCode = ErrorCode.TIMEOUT, message: str = "the time budget of 300 s is used up") -> TaskFailed:
    return TaskFailed(code=code, message=message, spent=SPENT)


def cancel_requested() -> TaskCancelRequested:
    return example("task.cancel_requested", TaskCancelRequested)


def cancelled() -> TaskCancelled:
    return msgspec.structs.replace(example("task.cancelled", TaskCancelled), spent=SPENT)


def events(task_id: str, *payloads: Payload, first_seq: int = 1) -> list[Event]:
    """The payloads as a task's stored events: one a second from noon on, sequences without gaps."""
    found: list[Event] = []
    position = Position.START
    for number, payload in enumerate(payloads):
        new = NewEvent(payload=payload, causation_id=task_id, key=str(number))
        headers = envelope(task_id, new, position, "test") | {"ce-time": "2026-11-22T12:00:00.000Z"}
        seq = first_seq + number
        stored_at = NOON + timedelta(seconds=number)
        event = Event.parse(f"{new.kind}.{task_id}", headers, schema.encode(payload), seq, stored_at)
        found.append(event)
        position = event.position
    return found


def message(subject: str, headers: dict[str, str], data: bytes, seq: int) -> Stored:
    """A stored message as a reader gets it."""
    stored_at = NOON + timedelta(seconds=seq)
    return Stored(
        subject=subject,
        headers=headers,
        data=data,
        seq=seq,
        pending=0,
        stored_at=stored_at,
    )


def messages(*told: Event) -> list[Stored]:
    return [message(event.subject, dict(event.headers), event.body, event.seq) for event in told]


class Told:
    """A task in a real log, told event by event."""

    def __init__(self, log: Log, task_id: str | None = None) -> None:
        self.task_id = task_id or str(uuid.uuid4())
        self.position = Position.START
        self._log = log

    async def tell(self, *payloads: Payload) -> int:
        """Appends the payloads; returns the last one's sequence."""
        for payload in payloads:
            key = str(self.position.version)
            new = NewEvent(payload=payload, causation_id=self.task_id, key=key)
            self.position = (await self._log.append(self.task_id, new, self.position)).position
        return self.position.seq


COMPLETED = (
    received(goal="Echo hello world"),
    planned("one", "two", cost_micro_usd=1200),
    dispatched("one"),
    executed("one"),
    dispatched("two"),
    step_failed("two"),
    dispatched("two", attempt=2),
    executed("two", attempt=2),
    completed(cost_micro_usd=1500, tokens=30),
)
FAILED = (received(goal="Sleep for ever"), planned("nap"), dispatched("nap"), failed())
CANCELLED = (received(goal="Fill the disk"), planned("fill"), dispatched("fill"), cancel_requested(), cancelled())
REJECTED = (rejected(),)
UNPLANNED = (
    received(goal="Fly"),
    plan_requested(),
    plan_failed(),
    failed(ErrorCode.PLANNING_FAILED, "no recipe for this goal"),
)
STORIES: dict[str, tuple[Payload, ...]] = {
    "completed": COMPLETED,
    "failed": FAILED,
    "cancelled": CANCELLED,
    "rejected": REJECTED,
    "unplanned": UNPLANNED,
}
