"""Reading and writing the projector's rows: a batch and the checkpoint in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import asyncpg

from octollm.projections.batch import Batch
from octollm.projections.rows import AttemptRow, EventRow, Phase, PlanRow, Status, TaskRow
from octollm.projections.stream import StreamState

Row = TaskRow | PlanRow | AttemptRow | EventRow

_ATTEMPT_KEY = ("task_id", "plan_version", "step_id", "attempt")


class CheckpointMoved(RuntimeError):
    """The checkpoint is not where this projector left it: somebody else has projected, or rebuilds."""


def _columns(row: type[Row]) -> tuple[str, ...]:
    return tuple(column.name for column in fields(row))


def _insert(table: str, row: type[Row]) -> str:
    columns = _columns(row)
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - names of ours only


def _values(rows: Sequence[Row]) -> list[list[Any]]:
    columns = _columns(type(rows[0])) if rows else ()
    return [[getattr(row, column) for column in columns] for row in rows]


_TASK = _insert("tasks", TaskRow) + (
    " ON CONFLICT (task_id) DO UPDATE SET "
    + ", ".join(f"{column} = EXCLUDED.{column}" for column in _columns(TaskRow) if column != "task_id")
)
_KNOWN = f"SELECT {', '.join(_columns(TaskRow))} FROM tasks WHERE task_id = ANY($1::text[])"  # noqa: S608 - as above
_PLAN = _insert("plans", PlanRow) + (
    " ON CONFLICT (task_id, plan_version) DO UPDATE SET "
    + ", ".join(f"{c} = EXCLUDED.{c}" for c in _columns(PlanRow) if c not in ("task_id", "plan_version"))
)
# An attempt's dispatch and its end each bring their own columns; its place in lists is that of the first of them.
_ATTEMPT = _insert("attempts", AttemptRow) + (
    f" ON CONFLICT ({', '.join(_ATTEMPT_KEY)}) DO UPDATE SET status = EXCLUDED.status, "
    + ", ".join(
        f"{column} = COALESCE(EXCLUDED.{column}, attempts.{column})"
        for column in _columns(AttemptRow)
        if column not in (*_ATTEMPT_KEY, "seq", "status")
    )
)


async def checkpoint(connection: asyncpg.Connection) -> tuple[StreamState, int] | None:
    """The log that the tables come from and the last sequence in them; None before the first start."""
    row = await connection.fetchrow("SELECT stream_created, first_seq, last_seq FROM checkpoint")
    if row is None:
        return None
    seq = row["last_seq"]
    return StreamState(created=row["stream_created"], first_seq=row["first_seq"], last_seq=seq), seq


async def begin(connection: asyncpg.Connection, stream: StreamState) -> None:
    """The checkpoint of empty tables."""
    await connection.execute(
        "INSERT INTO checkpoint (stream_created, first_seq, last_seq) VALUES ($1, $2, 0)",
        stream.created,
        stream.first_seq,
    )


async def clear(connection: asyncpg.Connection) -> None:
    """Drops every row of the view; the log still has all of it."""
    await connection.execute("TRUNCATE tasks, plans, attempts, events, checkpoint")


async def task_rows(connection: asyncpg.Connection, task_ids: Iterable[str]) -> dict[str, TaskRow]:
    """The rows of those tasks that have one."""
    records = await connection.fetch(_KNOWN, list(task_ids))
    return {record["task_id"]: _task_row(dict(record)) for record in records}


def _task_row(values: dict[str, Any]) -> TaskRow:
    values["status"] = Status(values["status"])
    values["phase"] = Phase(values["phase"])
    values["running"] = tuple(values["running"])
    return TaskRow(**values)


async def write(connection: asyncpg.Connection, batch: Batch, before: int, after: int) -> None:
    """Writes the batch and moves the checkpoint from `before` to `after`, inside the caller's transaction.

    Raises CheckpointMoved, and asyncpg's errors for values that the tables can't hold.
    """
    moved = await connection.execute("UPDATE checkpoint SET last_seq = $2 WHERE last_seq = $1", before, after)
    if moved != "UPDATE 1":
        raise CheckpointMoved(f"the checkpoint is no longer at {before}")
    await connection.copy_records_to_table(
        "events",
        schema_name="projections",
        columns=_columns(EventRow),
        records=_values(batch.events),
    )
    await connection.executemany(_TASK, _values(list(batch.tasks.values())))
    if batch.plans:
        await connection.executemany(_PLAN, _values(batch.plans))
    if batch.attempts:
        await connection.executemany(_ATTEMPT, _values(batch.attempts))
