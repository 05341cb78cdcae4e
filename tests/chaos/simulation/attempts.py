"""Which further attempts a log may have, and which it must: the contract's rules, written down without the saga's."""

from collections.abc import Iterator
from datetime import timedelta

from msgspec import UNSET

from octollm.events.carrier import (
    Effect,
    ErrorCode,
    Step,
    StepDispatched,
    StepFailed,
    TaskFailed,
    TaskReceived,
)
from octollm.events.envelope import Event

Broken = tuple[str, str]
"""An invariant, and what breaks it."""


def broken(events: list[Event]) -> Iterator[Broken]:
    """What is wrong with the attempts of a task."""
    failures: dict[tuple[str, int], Event] = {}
    steps: dict[str, Step] = {}
    retries, is_cancelled = 0, False
    for event in events:
        match event.payload:
            case StepFailed(step_id=name, attempt=attempt):
                failures.setdefault((name, attempt), event)
            case StepDispatched(step=step, attempt=attempt):
                steps[step.id] = step
                if attempt > 1:
                    retries += 1
                    if is_cancelled:
                        yield "nothing begins after a cancel", f"attempt {attempt} of step {step.id}"
                    yield from _unfounded(step, attempt, event, failures.get((step.id, attempt - 1)))
            case _:
                is_cancelled = is_cancelled or event.kind == "task.cancel_requested"
    budget = _received(events).budget
    if retries > budget.max_retries:
        yield "retries stay within the budget", f"{retries} of {budget.max_retries}"
    end = events[-1]
    if isinstance(end.payload, TaskFailed) and isinstance(end.payload.step_id, str):
        name = end.payload.step_id
        attempt = max(number for step, number in failures if step == name)
        failure = failures[name, attempt]
        # Steps that failed before and wait for an attempt of their own have the first claim to what is left.
        waiting = {step for (step, _), event in failures.items() if event.seq < failure.seq} - {name}
        latest = failure.stored_at + _longest_pause(steps[name], attempt)
        deadline = events[0].stored_at + timedelta(seconds=budget.max_time_seconds)
        left = budget.max_retries - retries - len(waiting)
        in_time = latest < deadline and end.stored_at < deadline
        if left > 0 and in_time and _may_follow(steps[name], attempt, _code(failure)):
            yield "what may be tried again is", f"step {name} after attempt {attempt}: {_code(failure)}"


def _unfounded(step: Step, attempt: int, dispatch: Event, failure: Event | None) -> Iterator[Broken]:
    what = f"attempt {attempt} of step {step.id}"
    if failure is None:
        yield "another attempt follows a failure", what
        return
    if not _may_follow(step, attempt - 1, _code(failure)):
        yield "what must not run again does not", f"{what} after {_code(failure)}, {step.effect}"
    if dispatch.causation_id != failure.id:
        yield "another attempt answers the failure", what
    # What the saga itself appends has, in memory, the time of what caused it: its pause may begin too early.
    if failure.source == "/octollm/executor" and dispatch.stored_at < failure.stored_at + _longest_pause(step, 1) / 2:
        yield "another attempt comes after a pause", what


def _may_follow(step: Step, attempt: int, code: ErrorCode) -> bool:
    if attempt >= (3 if step.retry is UNSET else step.retry.max_attempts):
        return False
    if code == ErrorCode.SANDBOX_UNAVAILABLE:
        return True
    asked = step.retry is not UNSET and step.retry.on is not UNSET and code.value in step.retry.on
    return step.effect != Effect.side_effecting and (
        code in (ErrorCode.ARM_UNAVAILABLE, ErrorCode.INTERNAL_ERROR) or asked
    )


def _longest_pause(step: Step, attempt: int) -> timedelta:
    first = 500 if step.retry is UNSET or step.retry.backoff_ms is UNSET else step.retry.backoff_ms
    return timedelta(milliseconds=min(first * 2 ** (attempt - 1), 60_000))


def _code(failure: Event) -> ErrorCode:
    return ErrorCode(failure.data["code"])


def _received(events: list[Event]) -> TaskReceived:
    assert isinstance(events[0].payload, TaskReceived)
    return events[0].payload
