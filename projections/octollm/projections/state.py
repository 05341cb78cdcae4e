"""The fold: a task's row and an event give the task's next row, and what the event says about plans and attempts.

Pure: no clock, no database, nothing that the event and the row do not hold. Time is the broker's.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from octollm.events.carrier import (
    ErrorCode,
    Output,
    PlanFailed,
    PlanRequested,
    Spent,
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
from octollm.events.envelope import Event
from octollm.projections.rows import AttemptRow, AttemptStatus, Phase, PlanRow, Status, TaskRow

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one event changes: the task's next row, a new plan, attempts that began or ended."""

    task: TaskRow
    plan: PlanRow | None = None
    attempts: tuple[AttemptRow, ...] = ()


def apply(task: TaskRow | None, event: Event) -> Change:
    """The change that `event` makes to `task` (None before its first event).

    Raises Undecodable where the payload can't be read. An event after a terminal one changes only the position:
    terminal states never change.
    """
    payload = event.payload
    row = _moved(task, event.task_id, event.seq, event.version, event.stored_at)
    if row.status.terminal:
        return Change(task=row)
    match payload:
        case TaskReceived():
            return Change(
                task=replace(
                    row,
                    phase=Phase.PLANNING,
                    goal=_text(payload.goal),
                    priority=payload.priority.value,
                    retry_of=_set(payload.retry_of),
                    budget=_json(payload.budget),
                    metadata=_json(payload.metadata),
                )
            )
        case TaskRejected():
            row = replace(row, code=payload.code.value, message=_text(payload.message), reasons=_json(payload.reasons))
            return _ended(row, Status.REJECTED, event)
        case TaskPlanned():
            return _planned(row, payload, event)
        case PlanFailed():
            spent = payload.usage.input_tokens + payload.usage.output_tokens
            cost = row.cost_micro_usd + payload.cost_micro_usd
            return Change(task=replace(row, phase=Phase.PLANNING, cost_micro_usd=cost, tokens=row.tokens + spent))
        case PlanRequested():
            return Change(task=replace(row, phase=Phase.PLANNING))
        case StepDispatched():
            return _dispatched(row, payload, event)
        case StepExecuted() | StepFailed():
            return _step_ended(row, payload, event)
        case TaskCancelRequested():
            return Change(task=replace(row, cancel_requested_at=row.cancel_requested_at or event.stored_at))
        case TaskCompleted():
            result = payload.result
            row = replace(row, result=_json(result), cost_micro_usd=result.cost_micro_usd, tokens=result.tokens)
            return _ended(replace(row, duration_ms=result.total_duration_ms), Status.COMPLETED, event)
        case TaskFailed():
            row = replace(row, code=payload.code.value, message=_text(payload.message))
            return _ended(_settled(row, payload.spent), Status.FAILED, event)
        case TaskCancelled():
            why = f": {payload.reason}" if isinstance(payload.reason, str) else ""
            message = _text(f"cancelled by {payload.requested_by}{why}")
            row = replace(row, code=ErrorCode.CANCELLED.value, message=message)
            return _ended(_settled(row, payload.spent), Status.CANCELLED, event)
        case _:
            # A kind that is newer than this fold must not stop the view; a test names those of the contract.
            return Change(task=row)


def unread(task: TaskRow | None, task_id: str, seq: int, version: int | None, stored_at: datetime) -> Change:
    """The change made by an event that can't be read: the task's position, and one more on its count of such events."""
    if version is None:
        version = task.version + 1 if task else 1
    row = _moved(task, task_id, seq, version, stored_at)
    return Change(task=replace(row, undecodable=row.undecodable + 1))


def _moved(task: TaskRow | None, task_id: str, seq: int, version: int, stored_at: datetime) -> TaskRow:
    if task is None:
        return TaskRow(
            task_id=task_id, first_seq=seq, last_seq=seq, version=version, created_at=stored_at, updated_at=stored_at
        )
    return replace(task, last_seq=seq, version=version, updated_at=stored_at)


def _planned(row: TaskRow, payload: TaskPlanned, event: Event) -> Change:
    usage = payload.usage
    task = replace(
        row,
        status=Status.IN_PROGRESS,
        phase=Phase.EXECUTING,
        plan_version=payload.plan_version,
        steps_total=len(payload.steps),
        steps_done=0,
        cost_micro_usd=row.cost_micro_usd + payload.cost_micro_usd,
        tokens=row.tokens + usage.input_tokens + usage.output_tokens,
    )
    plan = PlanRow(
        task_id=row.task_id,
        plan_version=payload.plan_version,
        seq=event.seq,
        provider=_text(payload.provider),
        model=_text(payload.model) if isinstance(payload.model, str) else None,
        steps=_json(payload.steps),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_micro_usd=payload.cost_micro_usd,
        confidence=payload.confidence,
        repairs=payload.repairs,
        planned_at=event.stored_at,
    )
    return Change(task=task, plan=plan)


def _dispatched(row: TaskRow, payload: StepDispatched, event: Event) -> Change:
    step = payload.step
    key = _key(payload.plan_version, step.id, payload.attempt)
    running = row.running if key in row.running else (*row.running, key)
    attempt = AttemptRow(
        task_id=row.task_id,
        plan_version=payload.plan_version,
        step_id=step.id,
        attempt=payload.attempt,
        seq=event.seq,
        status=AttemptStatus.RUNNING,
        title=_text(step.title),
        arm=step.arm,
        effect=step.effect.value,
        action=_json(step.action),
        dispatched_at=event.stored_at,
        deadline=payload.deadline,
    )
    return Change(task=replace(row, phase=Phase.EXECUTING, running=running), attempts=(attempt,))


def _step_ended(row: TaskRow, payload: StepExecuted | StepFailed, event: Event) -> Change:
    key = _key(payload.plan_version, payload.step_id, payload.attempt)
    if key not in row.running:
        # Late: the attempt has been given up, and the saga does not take its result either.
        return Change(task=row)
    task = replace(row, running=tuple(other for other in row.running if other != key))
    attempt = AttemptRow(
        task_id=row.task_id,
        plan_version=payload.plan_version,
        step_id=payload.step_id,
        attempt=payload.attempt,
        seq=event.seq,
        status=AttemptStatus.EXECUTED,
        exit_code=_set(payload.exit_code),
        output=_json(payload.output) if isinstance(payload.output, Output) else None,
        checks=_json(payload.checks) if isinstance(payload.checks, list) else None,
        usage=_json(payload.usage) if isinstance(payload.usage, msgspec.Struct) else None,
        ended_at=event.stored_at,
    )
    if isinstance(payload, StepFailed):
        attempt = replace(
            attempt,
            status=AttemptStatus.FAILED,
            signal=_set(payload.signal),
            code=payload.code.value,
            message=_text(payload.message),
            violations=_json(payload.violations),
        )
    elif payload.plan_version == row.plan_version:
        task = replace(task, steps_done=row.steps_done + 1)
    return Change(task=task, attempts=(attempt,))


def _settled(row: TaskRow, spent: Spent) -> TaskRow:
    return replace(row, cost_micro_usd=spent.cost_micro_usd, tokens=spent.tokens, duration_ms=spent.total_duration_ms)


def _ended(row: TaskRow, status: Status, event: Event) -> Change:
    abandoned = []
    for key in row.running:
        plan_version, step_id, attempt = key.split("/")
        abandoned.append(
            AttemptRow(
                task_id=row.task_id,
                plan_version=int(plan_version),
                step_id=step_id,
                attempt=int(attempt),
                seq=event.seq,
                status=AttemptStatus.ABANDONED,
                ended_at=event.stored_at,
            )
        )
    task = replace(row, status=status, phase=Phase.DONE, running=(), finished_at=event.stored_at)
    return Change(task=task, attempts=tuple(abandoned))


def _key(plan_version: int, step_id: str, attempt: int) -> str:
    return f"{plan_version}/{step_id}/{attempt}"


def _set(value: V | msgspec.UnsetType) -> V | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _text(value: str) -> str:
    # Postgres's TEXT can't hold U+0000; its picture U+2400 stands for it here, the event keeps the original.
    return value.replace("\0", "\u2400")
