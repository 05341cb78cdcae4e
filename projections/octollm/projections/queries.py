"""Reading the view. Lists are keyset pages over sequences, which never change and never repeat."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from msgspec import Raw

from octollm.events.carrier import ErrorCode, Priority
from octollm.events.errors import catalogue
from octollm.projections.database import LOST, DatabaseLost
from octollm.projections.rows import AttemptStatus, Phase, Status
from octollm.projections.views import (
    AttemptPage,
    AttemptView,
    EventPage,
    EventView,
    PlanView,
    StepSummary,
    TaskError,
    TaskItem,
    TaskPage,
    TaskView,
)

_PAGE_BYTES = 4 * 1024 * 1024

_TASK = """
    SELECT task_id, status, phase, goal, priority, retry_of, code, message, reasons, plan_version, steps_total,
           steps_done, running, cost_micro_usd, tokens, duration_ms, version, last_seq, undecodable, created_at,
           updated_at, cancel_requested_at, finished_at, budget, metadata, result
    FROM tasks WHERE task_id = $1
"""
_TASKS = """
    SELECT task_id, status, phase, goal, priority, retry_of, code, message, reasons, plan_version, steps_total,
           steps_done, running, cost_micro_usd, tokens, duration_ms, version, last_seq, undecodable, created_at,
           updated_at, cancel_requested_at, finished_at, first_seq
    FROM tasks
    WHERE ($1::bigint IS NULL OR first_seq < $1)
      AND (cardinality($2::text[]) = 0 OR status = ANY($2))
      AND (cardinality($3::text[]) = 0 OR priority = ANY($3))
      AND ($4::text IS NULL OR goal ILIKE $4)
    ORDER BY first_seq DESC LIMIT $5
"""
# Outputs and payloads are up to 160 and 256 KiB each: a page ends at its number of rows or at its size, and holds one
# row at least.
_ATTEMPTS = """
    SELECT plan_version, step_id, attempt, status, title, arm, effect, action, exit_code, signal, code, message,
           violations, output, checks, usage, deadline, dispatched_at, ended_at, seq
    FROM (
        SELECT *, sum(bytes) OVER (ORDER BY seq) - bytes AS before
        FROM attempts, coalesce(octet_length(output::text), 0) AS bytes
        WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
    ) AS page
    WHERE before < $4 ORDER BY seq
"""
_PLAN = """
    SELECT task_id, plan_version, provider, model, steps, input_tokens, output_tokens, cost_micro_usd, confidence,
           repairs, planned_at, seq
    FROM plans WHERE task_id = $1 AND ($2::integer IS NULL OR plan_version = $2) ORDER BY plan_version DESC LIMIT 1
"""
_EVENTS = """
    SELECT seq, version, kind, id, causation_id, source, stored_at, hash, headers, payload, raw, undecodable
    FROM (
        SELECT *, sum(bytes) OVER (ORDER BY seq) - bytes AS before
        FROM events WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
    ) AS page
    WHERE before < $4 ORDER BY seq
"""
_LATER_ATTEMPT = "SELECT 1 FROM attempts WHERE task_id = $1 AND seq > $2 LIMIT 1"
_LATER_EVENT = "SELECT 1 FROM events WHERE task_id = $1 AND seq > $2 LIMIT 1"


class BadCursor(ValueError):
    """A cursor that no page gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; empty and None mean no restriction. `text` occurs in the goal, whatever its case."""

    statuses: Sequence[Status] = ()
    priorities: Sequence[Priority] = ()
    text: str | None = None


class Queries:
    """Questions to the view. Every method may raise DatabaseLost, and those that take a cursor BadCursor."""

    def __init__(self, pool: asyncpg.Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def ping(self) -> None:
        """Returns when the view's tables can be read."""
        await self._rows("SELECT last_seq FROM checkpoint")

    async def exists(self, task_id: str) -> bool | None:
        """True, or None for an unknown task."""
        return bool(await self._rows("SELECT 1 FROM tasks WHERE task_id = $1", task_id)) or None

    async def task(self, task_id: str) -> TaskView | None:
        """A task, or None for an unknown one."""
        for row in await self._rows(_TASK, task_id):
            return TaskView(
                **_item(row), budget=_raw(row["budget"]), metadata=_raw(row["metadata"]), result=_raw(row["result"])
            )
        return None

    async def tasks(self, wanted: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
        """Tasks, newest first."""
        pattern = None if wanted.text is None else f"%{_literally(wanted.text)}%"
        rows = await self._rows(
            _TASKS,
            _after(cursor),
            [status.value for status in wanted.statuses],
            [priority.value for priority in wanted.priorities],
            pattern,
            limit + 1,
        )
        page = rows[:limit]
        more = _cursor(page[-1]["first_seq"]) if len(rows) > limit else None
        return TaskPage(tasks=[TaskItem(**_item(row)) for row in page], next_cursor=more)

    async def attempts(self, task_id: str, cursor: str | None, limit: int) -> AttemptPage:
        """Attempts at the task's steps, in the order in which they began; a page ends early past 4 MiB of output."""
        page = await self._rows(_ATTEMPTS, task_id, _after(cursor) or 0, limit, _PAGE_BYTES)
        more = await self._next(_LATER_ATTEMPT, task_id, page)
        return AttemptPage(task_id=task_id, steps=[_attempt(row) for row in page], next_cursor=more)

    async def plan(self, task_id: str, version: int | None) -> PlanView | None:
        """A version of the plan, the newest by default; None where there is none."""
        for row in await self._rows(_PLAN, task_id, version):
            values = dict(row)
            return PlanView(**values | {"steps": _raw(row["steps"]), "cost_usd": row["cost_micro_usd"] / 1e6})
        return None

    async def events(self, task_id: str, cursor: str | None, limit: int) -> EventPage:
        """The task's events in order; a page ends early when its payloads pass 4 MiB."""
        page = await self._rows(_EVENTS, task_id, _after(cursor) or 0, limit, _PAGE_BYTES)
        more = await self._next(_LATER_EVENT, task_id, page)
        return EventPage(task_id=task_id, events=[_event(row) for row in page], next_cursor=more)

    async def _next(self, later: str, task_id: str, page: list[asyncpg.Record]) -> str | None:
        """The cursor of the page after, where there is anything on it."""
        if page and await self._rows(later, task_id, page[-1]["seq"]):
            return _cursor(page[-1]["seq"])
        return None

    async def _rows(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                return await connection.fetch(statement, *arguments)
        except LOST as error:
            raise DatabaseLost(error) from error


def _item(row: asyncpg.Record) -> dict[str, Any]:
    values = {column: row[column] for column in _PLAIN}
    return values | {
        "status": Status(row["status"]),
        "phase": Phase(row["phase"]),
        "error": _error(row, row["reasons"]),
        "steps": StepSummary(total=row["steps_total"], done=row["steps_done"], running=row["running"]),
        "cost_usd": row["cost_micro_usd"] / 1e6,
    }


_PLAIN = (
    "task_id",
    "goal",
    "priority",
    "retry_of",
    "plan_version",
    "cost_micro_usd",
    "tokens",
    "duration_ms",
    "version",
    "last_seq",
    "undecodable",
    "created_at",
    "updated_at",
    "cancel_requested_at",
    "finished_at",
)


def _attempt(row: asyncpg.Record) -> AttemptView:
    values = dict(row)
    del values["code"], values["message"]
    for column in ("action", "violations", "output", "checks", "usage"):
        values[column] = _raw(row[column])
    return AttemptView(**values | {"status": AttemptStatus(row["status"]), "error": _error(row, None)})


def _event(row: asyncpg.Record) -> EventView:
    return EventView(**dict(row) | {"headers": _raw(row["headers"]), "payload": _raw(row["payload"])})


def _error(row: asyncpg.Record, reasons: str | None) -> TaskError | None:
    if row["code"] is None:
        return None
    code = ErrorCode(row["code"])
    return TaskError(
        code=code, message=row["message"], hint=catalogue()[code].hint, reasons=_raw(reasons) or Raw(b"[]")
    )


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text.encode())


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def _after(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError) as error:
        raise BadCursor from error
    if not text.isdigit() or not 0 < int(text) < 2**63:
        raise BadCursor
    return int(text)
