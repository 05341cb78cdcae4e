"""`evolve`: the state after an event. Pure and total: what does not apply only advances the position."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import reduce
from typing import assert_never

from msgspec import UNSET

from octollm.events.carrier import (
    CheckAction,
    CommandAction,
    ErrorCode,
    Output,
    PlanFailed,
    PlanRequested,
    Step,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskCancelRequested,
    TaskPlanned,
    TaskReceived,
)
from octollm.events.envelope import Event, Undecodable
from octollm.events.payload import Payload
from octollm.orchestrator.state import (
    CUT,
    WAITING,
    Answer,
    BrokenPlan,
    Cancel,
    Contract,
    Ended,
    Executed,
    Executing,
    Failed,
    Ledger,
    New,
    Plan,
    Planning,
    Running,
    State,
    StepState,
    Unplanned,
    Waiting,
)


def evolve(state: State, event: Event) -> State:
    """The state after `event`.

    Late results, results of steps that don't run, whatever follows a terminal event, and what this version can't read
    advance the position and change nothing else: a task then ends at its deadline rather than never.
    """
    match state:
        case New() if event.kind == "task.received":
            changed = _received(state, event)
        case New() if event.terminal:
            changed = Ended(event.position, event.kind.removeprefix("task."))
        case Planning() | Unplanned() | Executing() if event.terminal:
            changed = Ended(event.position, event.kind.removeprefix("task."))
        case Planning() | Unplanned() | Executing():
            changed = _apply(state, event)
        case New() | Ended():
            changed = state
        case _:
            assert_never(state)
    return replace(changed, position=event.position)


def fold(events: list[Event], state: State | None = None) -> State:
    """The state after all of `events`."""
    return reduce(evolve, events, New() if state is None else state)


def up_to_ms(moment: datetime) -> datetime:
    """Rounded up to a whole millisecond, the resolution of deadlines: never before the moment itself."""
    return moment + timedelta(microseconds=-moment.microsecond % 1000)


def _payload(event: Event) -> Payload | None:
    try:
        return event.payload
    except Undecodable:
        return None


def _received(state: New, event: Event) -> State:
    received = _payload(event)
    if not isinstance(received, TaskReceived):
        return state
    budget = received.budget
    contract = Contract(
        received_id=event.id,
        received_at=event.stored_at,
        deadline=up_to_ms(event.stored_at + timedelta(seconds=budget.max_time_seconds)),
        time_budget=budget.max_time_seconds,
        max_retries=budget.max_retries,
        criteria=tuple(received.acceptance_criteria),
        traceparent=event.traceparent,
    )
    return Planning(position=event.position, contract=contract, at=event.stored_at, cause=event.id)


def _apply(state: Planning | Unplanned | Executing, event: Event) -> State:
    match state, _payload(event):
        case _, TaskCancelRequested() as asked if state.cancel is None:
            cancel = Cancel(asked.requested_by, None if asked.reason is UNSET else asked.reason, event.stored_at)
            return replace(state, cancel=cancel, at=_later(state.at, event), cause=event.id)
        case Planning(), PlanRequested() as requested if requested.attempt == state.attempt + 1:
            # Neither `at` nor `cause`: asking is the saga's own doing and no new fact about the task.
            return replace(state, attempt=requested.attempt, asked=event.version)
        case Planning(), TaskPlanned() as planned:
            return _planned(state, event, planned)
        case Planning(), PlanFailed() as failed:
            ledger = Ledger(failed.cost_micro_usd, failed.usage.input_tokens + failed.usage.output_tokens)
            return _unplanned(state, event, ledger, failed.code, failed.message)
        case Executing(), StepDispatched() as dispatched:
            return _dispatched(state, event, dispatched)
        case Executing(), StepExecuted() as executed:
            return _executed(state, event, executed)
        case Executing(), StepFailed() as failed:
            return _failed(state, event, failed)
        case _:
            return state


def _later(at: datetime, event: Event) -> datetime:
    # The broker's clock may be set back between two events; a state's time never is.
    return max(at, event.stored_at)


def _planned(state: Planning, event: Event, planned: TaskPlanned) -> State:
    ledger = Ledger(planned.cost_micro_usd, planned.usage.input_tokens + planned.usage.output_tokens)
    try:
        plan = Plan.of(planned, event.id, _later(state.at, event))
    except BrokenPlan as error:
        return _unplanned(state, event, ledger, ErrorCode.PLANNING_FAILED, str(error))
    return Executing(
        position=event.position,
        contract=state.contract,
        at=plan.at,
        cause=event.id,
        cancel=state.cancel,
        ledger=ledger,
        plan=plan,
        steps=(WAITING,) * len(plan.steps),
        verdicts=(None,) * len(state.contract.criteria),
    )


def _unplanned(state: Planning, event: Event, ledger: Ledger, code: ErrorCode, message: str) -> Unplanned:
    return Unplanned(
        position=event.position,
        contract=state.contract,
        at=_later(state.at, event),
        cause=event.id,
        cancel=state.cancel,
        ledger=ledger,
        code=code,
        message=message,
    )


def _dispatched(state: Executing, event: Event, dispatched: StepDispatched) -> Executing:
    place = state.plan.index.get(dispatched.step.id)
    if place is None or dispatched.plan_version != state.plan.version:
        return state
    attempt = dispatched.attempt
    if attempt != _next_attempt(state.steps[place]):
        return state
    running = Running(attempt, event.id, _later(state.at, event))
    # Not `at`: a dispatch is the saga's own doing and no new fact about the task.
    return replace(state, steps=_put(state.steps, place, running), retries=state.retries + (attempt > 1))


def _next_attempt(step: StepState) -> int | None:
    """The attempt that a dispatch may begin; None while one runs, and after one that succeeded."""
    match step:
        case Waiting():
            return 1
        case Failed():
            return step.attempt + 1
        case Running() | Executed():
            return None


def _running(state: Executing, result: StepExecuted | StepFailed) -> int | None:
    """The place of the running attempt that `result` settles; None where it is late or unknown."""
    place = state.plan.index.get(result.step_id)
    if place is None or result.plan_version != state.plan.version:
        return None
    step = state.steps[place]
    return place if isinstance(step, Running) and step.attempt == result.attempt else None


def _executed(state: Executing, event: Event, executed: StepExecuted) -> Executing:
    place = _running(state, executed)
    if place is None:
        return state
    step, at = state.plan.steps[place], _later(state.at, event)
    return replace(
        state,
        at=at,
        cause=event.id,
        steps=_put(state.steps, place, Executed(event.id, event.version, at)),
        verdicts=_judged(state.verdicts, step, executed),
        answer=_answer(state.answer, place, step, executed.output),
        workspace=state.workspace if executed.workspace is UNSET else executed.workspace.after,
    )


def _failed(state: Executing, event: Event, failed: StepFailed) -> Executing:
    place = _running(state, failed)
    if place is None:
        return state
    at = _later(state.at, event)
    step = Failed(failed.attempt, failed.code, failed.message, event.id, event.version, at)
    return replace(state, at=at, cause=event.id, steps=_put(state.steps, place, step))


def _put(steps: tuple[StepState, ...], place: int, step: StepState) -> tuple[StepState, ...]:
    return (*steps[:place], step, *steps[place + 1 :])


def _judged(verdicts: tuple[bool | None, ...], step: Step, executed: StepExecuted) -> tuple[bool | None, ...]:
    """A step's `verifies` names the task's criteria in the order of its own: a check's, else its acceptance."""
    if step.verifies is UNSET:
        return verdicts
    own = step.action.criteria if isinstance(step.action, CheckAction) else step.acceptance
    judged = list(verdicts)
    for index, criterion in zip(step.verifies, own, strict=False):
        passed = next((check.passed for check in executed.checks if check.criterion == criterion), None)
        if index < len(judged) and passed is not None:
            judged[index] = passed
    return tuple(judged)


def _answer(known: Answer | None, place: int, step: Step, output: Output) -> Answer | None:
    stdout = output.stdout
    if not isinstance(step.action, CommandAction) or stdout.bytes == 0 or (known is not None and place < known.place):
        return known
    return Answer(place, f"{stdout.head}{CUT if stdout.truncated else ''}{stdout.tail}")
