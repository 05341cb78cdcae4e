"""Histories for tests: payloads with the uninteresting parts filled in, and events that form a true chain."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from octollm.events import schema
from octollm.events.carrier import (
    CheckAction,
    CheckResult,
    CommandAction,
    ContainsCriterion,
    Criterion,
    Effect,
    ErrorCode,
    FileAction,
    Limits,
    Op,
    Output,
    OutputStream,
    PlanFailed,
    PlanFailureClass,
    ResourceUsage,
    Step,
    StepExecuted,
    StepFailed,
    TaskPlanned,
    TaskReceived,
    TokenUsage,
)
from octollm.events.envelope import Event, NewEvent, Position, envelope
from octollm.events.payload import Payload
from octollm.orchestrator.grants import granted
from octollm.orchestrator.saga import Intent
from tests.events.verifier import TOKENS

TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PRIVATE_KEY: str = TOKENS["private_key"]
TOKEN: str = TOKENS["cases"][0]["token"]
"""Signed by that key; good where only its form is looked at."""
CONTAINS = ContainsCriterion(text="hello")


def at(seconds: float) -> datetime:
    """So many seconds after the start of a history."""
    return START + timedelta(seconds=seconds)


def received(*criteria: Criterion, seconds: int = 300, retries: int = 0) -> TaskReceived:
    raw: dict[str, Any] = dict(schema.documents()["task.received"]["examples"][0])
    raw["budget"] = raw["budget"] | {"max_time_seconds": seconds, "max_retries": retries}
    raw["acceptance_criteria"] = msgspec.to_builtins(criteria)
    return msgspec.convert(raw, TaskReceived)


def step(name: str, *depends_on: str, wall_ms: int = 30_000) -> Step:
    return Step(
        id=name,
        title=name,
        arm="executor",
        action=CommandAction(pipeline=[["echo", name]]),
        depends_on=list(depends_on),
        acceptance=[],
        effect=Effect.pure,
        limits=Limits(wall_ms=wall_ms, memory_bytes=536_870_912, output_bytes=1_048_576),
    )


def file_step(name: str, *depends_on: str) -> Step:
    action = FileAction(op=Op.write, path="a.txt", text="")
    return msgspec.structs.replace(step(name, *depends_on), action=action)


def check_step(name: str, *depends_on: str, verifies: dict[int, ContainsCriterion]) -> Step:
    """A check of these criteria, which stand in the task under these indices."""
    action = CheckAction(criteria=list(verifies.values()))
    return msgspec.structs.replace(step(name, *depends_on), action=action, verifies=list(verifies))


def planned(*steps: Step, cost: int = 0, tokens: tuple[int, int] = (0, 0)) -> TaskPlanned:
    return TaskPlanned(
        plan_version=1,
        steps=list(steps),
        provider="caller",
        usage=TokenUsage(input_tokens=tokens[0], output_tokens=tokens[1]),
        cost_micro_usd=cost,
        confidence=1000,
        repairs=0,
    )


def plan_failed(code: ErrorCode = ErrorCode.PLANNING_FAILED, message: str = "no recipe") -> PlanFailed:
    return PlanFailed(
        plan_version=1,
        code=code,
        class_=PlanFailureClass.unsupported,
        message=message,
        retryable=False,
        provider="offline",
        usage=TokenUsage(input_tokens=70, output_tokens=30),
        cost_micro_usd=9,
    )


def stream(head: str = "", tail: str = "", *, truncated: bool = False) -> OutputStream:
    return OutputStream(
        head=head, tail=tail, bytes=len(head) + len(tail), digest="0" * 64, truncated=truncated, lossy=False
    )


def executed(
    name: str, stdout: str | OutputStream = "", checks: Sequence[CheckResult] = (), attempt: int = 1
) -> Payload:
    output = stream(stdout) if isinstance(stdout, str) else stdout
    return StepExecuted(
        plan_version=1,
        step_id=name,
        attempt=attempt,
        exit_code=0,
        output=Output(stdout=output, stderr=stream()),
        checks=list(checks),
        usage=ResourceUsage(duration_ms=1, cpu_ms=1, memory_peak_bytes=1),
    )


def failed(
    name: str, code: ErrorCode = ErrorCode.STEP_FAILED, message: str = "exit code 1", attempt: int = 1
) -> Payload:
    return StepFailed(plan_version=1, step_id=name, attempt=attempt, code=code, message=message, violations=[])


def passed(criterion: ContainsCriterion) -> CheckResult:
    return CheckResult(criterion=criterion, passed=True, detail="found")


class History:
    """A task's log in memory: events in a chain, each stored a second after the one before unless told otherwise."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def position(self) -> Position:
        return self.events[-1].position if self.events else Position.START

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def add(self, new: Payload | Intent, seconds: float | None = None, source: str = "test") -> Event:
        """Stores an event `seconds` after the start."""
        if isinstance(new, Payload):
            event = NewEvent(payload=new, causation_id=self.events[-1].id if self.events else TASK, key=_key(new))
        else:
            event = granted(TASK, new, lambda _: TOKEN)
        stored_at = at(len(self.events)) if seconds is None else at(seconds)
        headers = envelope(TASK, event, self.position, source)
        body = schema.encode(event.payload)
        stored = Event.parse(f"{event.kind}.{TASK}", headers, body, len(self.events) + 1, stored_at)
        self.events.append(stored)
        return stored


def _key(payload: Payload) -> str:
    match payload:
        case StepExecuted() | StepFailed():
            return f"{payload.plan_version}/{payload.step_id}/{payload.attempt}"
        case _:
            return ""
