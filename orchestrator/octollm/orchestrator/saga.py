"""`decide`: what is to be put on record next, and `next_deadline`: when silence alone is a reason to look again.

Pure: a function of the state and the trigger, so that a crash, a second orchestrator or a replay years later decide the
same. Ids of what is decided follow from the state (events/README.md, Ids), never from how far a decision got.

Which outcome a task has, the first that applies: a cancel on record → cancelled; every step executed → completed;
a step that failed in time, for good → failed with its code; the time budget used up → failed with TIMEOUT.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from msgspec import UNSET, structs

from octollm.events.carrier import (
    ErrorCode,
    PlanReason,
    PlanRequested,
    Purpose,
    Step,
    StepDispatched,
    StepFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskFailed,
)
from octollm.events.payload import Payload
from octollm.events.schema import kind_of
from octollm.orchestrator import retry
from octollm.orchestrator.fold import up_to_ms
from octollm.orchestrator.result import result, spent
from octollm.orchestrator.state import (
    Cancel,
    Ended,
    Executed,
    Executing,
    Failed,
    New,
    Open,
    Planning,
    Running,
    State,
    Unplanned,
    Waiting,
)

GRACE = timedelta(seconds=15)
"""What an arm gets on top of a step's own wall clock, and after a cancel, before it counts as silent."""

PLAN_VERSION = 1
"""Of the plan that is asked for: a task has one."""

MOST_PLANNING_ATTEMPTS = 10
"""However often a person has a task resumed: as many as plan.requested can count."""

UNSIGNED = ""
"""A dispatch's capability as decided. The schema refuses it: without a signature nothing gets on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An event to put on record, but for what can't be pure: `grants.granted` makes the event of it.

    `key` says what the decision is about (`<plan>/<step>/<attempt>`), never a position.
    """

    payload: Payload
    causation_id: str
    key: str = ""
    traceparent: str | None = None

    @property
    def kind(self) -> str:
        """`<entity>.<fact>`."""
        return kind_of(self.payload)


@dataclass(frozen=True, slots=True)
class Folded:
    """The state has changed, or may have: look at it."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """It is `at` (the broker's time) or later."""

    at: datetime


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A person wants the task stopped."""

    requested_by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """A person wants the task to go on, as it stood at task version `version`: what was asked for since, is."""

    requested_by: str
    version: int


Trigger = Folded | TimerFired | CancelAsked | ResumeAsked

FOLDED = Folded()


def decide(state: State, trigger: Trigger, *, grace: timedelta = GRACE) -> tuple[Intent, ...]:
    """What to append now, in order; empty when there is nothing to do but wait.

    Append the first, fold it, decide again: the rest comes again with the same ids. Deciding twice does no harm.
    """
    if not isinstance(state, Open):
        return ()
    if isinstance(trigger, CancelAsked) and state.cancel is None:
        return (_request_cancel(state, trigger),)
    now = max(state.at, trigger.at) if isinstance(trigger, TimerFired) else state.at
    match state:
        case Executing():
            return _carry_on(state, now, grace)
        case Open(cancel=Cancel() as cancel):
            return (_cancelled(state, cancel, now),)
        case Unplanned():
            return (_end(state, _failed(state, now, state.code, state.message)),)
        case _ if now >= state.contract.deadline:
            return (_out_of_time(state, now),)
        case Planning() if isinstance(trigger, ResumeAsked):
            return _ask_again(state, trigger)
        case _:
            return ()


def next_deadline(state: State, *, grace: timedelta = GRACE) -> datetime | None:
    """When `decide` has something to do even if nothing happens; None for a task that is not open."""
    match state:
        case New() | Ended():
            return None
        case Executing():
            limits = [limit for _, _, limit in _limits(state, grace)]
            retries = retry.schedule(state)
            if state.cancel is None and _failure(state, retries) is None:
                limits += retries.values()
            return min(limits, default=state.contract.deadline)
        case _:
            return state.contract.deadline


def _limits(state: Executing, grace: timedelta) -> Iterator[tuple[int, Running, datetime]]:
    """Running steps in plan order, each with the time at which its arm counts as silent."""
    for place, step in enumerate(state.steps):
        if isinstance(step, Running):
            limit = step.since + timedelta(milliseconds=state.plan.steps[place].limits.wall_ms) + grace
            if state.cancel is not None:
                limit = min(limit, state.cancel.at + grace)
            yield place, step, min(up_to_ms(limit), state.contract.deadline)


def _carry_on(state: Executing, now: datetime, grace: timedelta) -> tuple[Intent, ...]:
    running = tuple(_limits(state, grace))
    overdue = tuple(_give_up(state, place, step, now) for place, step, limit in running if now >= limit)
    if overdue:
        return overdue
    if state.cancel is not None:
        return () if running else (_cancelled(state, state.cancel, now),)
    if all(isinstance(step, Executed) for step in state.steps):
        return (_end(state, TaskCompleted(result=result(state, now))),)
    is_over = now >= state.contract.deadline
    retries = {} if is_over else retry.schedule(state)
    failure = _failure(state, retries)
    if failure is None and not is_over:
        return tuple(_dispatches(state, retries, now, grace))
    if running:
        return ()
    if failure is not None and failure[1].at < state.contract.deadline:
        return (_end(state, _failed_at(state, now, *failure)),)
    return (_out_of_time(state, now),)


def _failure(state: Executing, retries: Collection[int]) -> tuple[int, Failed] | None:
    """The first step that failed for good, and its place: it decides the task."""
    failed = (
        (place, step) for place, step in enumerate(state.steps) if isinstance(step, Failed) and place not in retries
    )
    return min(failed, key=lambda one: one[1].version, default=None)


def _dispatches(state: Executing, retries: Mapping[int, datetime], now: datetime, grace: timedelta) -> Iterator[Intent]:
    """In plan order: each waiting step whose dependencies have executed, each failed one whose next attempt is due."""
    for place, (planned, progress) in enumerate(zip(state.plan.steps, state.steps, strict=True)):
        match progress:
            case Failed() if place in retries and now >= retries[place]:
                yield _dispatch(state, planned, progress.attempt + 1, retries[place], progress.event_id, grace)
            case Waiting():
                needed = [state.steps[state.plan.index[name]] for name in planned.depends_on]
                executed = [step for step in needed if isinstance(step, Executed)]
                if len(executed) == len(needed):
                    # The event that made it ready: the last of its dependencies, or the plan.
                    last = max(executed, key=lambda step: step.version, default=state.plan)
                    yield _dispatch(state, planned, 1, last.at, last.event_id, grace)


def _dispatch(
    state: Executing, planned: Step, attempt: int, since: datetime, causation_id: str, grace: timedelta
) -> Intent:
    payload = StepDispatched(
        plan_version=state.plan.version,
        attempt=attempt,
        purpose=Purpose.run,
        step=planned,
        deadline=_deadline(state, planned, since, grace),
        capability=UNSIGNED,
        workspace=UNSET if state.workspace is None else state.workspace,
    )
    return _intent(state, payload, causation_id, f"{state.plan.version}/{planned.id}/{attempt}")


def _deadline(state: Open, step: Step, since: datetime, grace: timedelta) -> str:
    limit = up_to_ms(since + timedelta(milliseconds=step.limits.wall_ms) + grace)
    return rfc3339(min(limit, state.contract.deadline))


def in_time(state: Open, intent: Intent, now: datetime, *, grace: timedelta = GRACE) -> Intent:
    """The intent; a dispatch that comes late, as no orchestrator ran, with a deadline that leaves the step its time.

    `now` is any clock's: it moves what an arm is told, never what the saga decides.
    """
    dispatch = intent.payload
    if not isinstance(dispatch, StepDispatched):
        return intent
    at_least = rfc3339(min(now + timedelta(milliseconds=dispatch.step.limits.wall_ms), state.contract.deadline))
    if dispatch.deadline >= at_least:
        return intent
    return replace(intent, payload=structs.replace(dispatch, deadline=_deadline(state, dispatch.step, now, grace)))


def _give_up(state: Executing, place: int, step: Running, now: datetime) -> Intent:
    planned = state.plan.steps[place]
    if now >= state.contract.deadline:
        code, message = ErrorCode.TIMEOUT, _time_used_up(state)
    else:
        code = ErrorCode.ARM_UNAVAILABLE
        message = (
            f"arm {planned.arm} did not report in time on attempt {step.attempt}; "
            "its outcome is unknown: see that the arm runs (octo ps)"
        )
    payload = StepFailed(
        plan_version=state.plan.version,
        step_id=planned.id,
        attempt=step.attempt,
        code=code,
        message=message,
        violations=[],
    )
    return _intent(state, payload, step.event_id, f"{state.plan.version}/{planned.id}/{step.attempt}")


def _request_cancel(state: Open, asked: CancelAsked) -> Intent:
    # One per task, whoever asks and however often: so it answers the task's first event.
    reason = UNSET if asked.reason is None else asked.reason
    payload = TaskCancelRequested(requested_by=asked.requested_by, reason=reason)
    return _intent(state, payload, state.contract.received_id)


def _ask_again(state: Planning, asked: ResumeAsked) -> tuple[Intent, ...]:
    if asked.version < state.asked or state.attempt == MOST_PLANNING_ATTEMPTS:
        return ()
    attempt = state.attempt + 1
    payload = PlanRequested(
        plan_version=PLAN_VERSION, attempt=attempt, reason=PlanReason.resumed, requested_by=asked.requested_by
    )
    # One per attempt, whoever asks: so it answers the task's first event.
    return (_intent(state, payload, state.contract.received_id, f"{PLAN_VERSION}/{attempt}"),)


def _cancelled(state: Open, cancel: Cancel, now: datetime) -> Intent:
    reason = UNSET if cancel.reason is None else cancel.reason
    payload = TaskCancelled(requested_by=cancel.requested_by, reason=reason, spent=spent(state, now))
    return _end(state, payload)


def _out_of_time(state: Open, now: datetime) -> Intent:
    return _end(state, _failed(state, now, ErrorCode.TIMEOUT, _time_used_up(state)))


def _time_used_up(state: Open) -> str:
    doing = "planning" if isinstance(state, Planning) else "its steps"
    return (
        f"the task's time budget of {state.contract.time_budget} s was used up by {doing}; "
        "raise budget.max_time_seconds (3600 at most) or ask for less"
    )


def _failed_at(state: Executing, now: datetime, place: int, step: Failed) -> TaskFailed:
    step_id = state.plan.steps[place].id
    tries = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    return _failed(state, now, step.code, f"step {step_id}{tries}: {step.message}", step_id)


def _failed(state: Open, now: datetime, code: ErrorCode, message: str, step_id: str | None = None) -> TaskFailed:
    return TaskFailed(
        code=code,
        message=message[:2000],
        step_id=UNSET if step_id is None else step_id,
        spent=spent(state, now),
    )


def _end(state: Open, payload: Payload) -> Intent:
    return _intent(state, payload, state.cause)


def _intent(state: Open, payload: Payload, causation_id: str, key: str = "") -> Intent:
    return Intent(payload=payload, causation_id=causation_id, key=key, traceparent=state.contract.traceparent)


def rfc3339(moment: datetime) -> str:
    """In UTC with milliseconds: texts of this form sort as the moments do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
