"""The projector: follows the log from the checkpoint on and writes batches, one transaction each.

One session holds one Postgres connection, and on it the advisory lock that keeps a second projector waiting. The lock
and the transactions share the connection, so whoever loses the lock can't commit either. Whatever goes wrong ends the
session; the next one starts from the checkpoint, which is always that of the rows.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import structlog

from octollm.events import failpoint
from octollm.events.config import PostgresSettings
from octollm.events.direct import Stored
from octollm.events.log import LogUnavailable
from octollm.projections import metrics, tables
from octollm.projections.batch import project, task_of
from octollm.projections.database import LOST, DatabaseLost, connect
from octollm.projections.migration import MigrationRefused, migrate
from octollm.projections.progress import Progress
from octollm.projections.stream import EventStream, StreamState

_LOCK = 0x0C70_0002
_BATCH_EVENTS = 256
_BATCH_BYTES = 4 * 1024 * 1024
_STANDBY_POLL_S = 0.1
_END_POLL_S = 1.0
_BACKOFF_S = (0.2, 5.0)
_COMMAND_TIMEOUT_S = 30.0

# Values that a table can't hold: the event is kept as raw bytes instead of stopping all others.
_UNFIT = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.IntegrityConstraintViolationError, ValueError)

_REBUILD = "drop the view and replay this log (python -m octollm.projections --rebuild)"

_log = structlog.get_logger()


class StreamChanged(RuntimeError):
    """The log is not the one that the tables come from: nothing is projected, so that two logs are never mixed."""


class ProjectorActive(RuntimeError):
    """Another process holds the projector's lock."""


class Projector:
    """Keeps the view level with the log. `run` once; read `progress` for how far it got and what troubles it."""

    def __init__(self, postgres: PostgresSettings, stream: EventStream, progress: Progress) -> None:
        self._postgres = postgres
        self._stream = stream
        self._progress = progress

    async def run(self) -> None:
        """Projects until cancelled; comes back by itself from a lost database, broker or lock."""
        self._progress.trouble = "no connection to NATS yet"
        await self._stream.connect()
        pause = _BACKOFF_S[0]
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except StreamChanged as error:
                cause, self._progress.trouble = type(error).__name__, str(error)
                self._progress.foreign = True
                _log.error("the projection refuses to go on", reason=str(error))
            except MigrationRefused as error:
                cause, self._progress.trouble = type(error).__name__, str(error)
                _log.error("the projection refuses to go on", reason=str(error))
            except (LogUnavailable, tables.CheckpointMoved) as error:
                cause, self._progress.trouble = type(error).__name__, str(error)
                _log.warning("projector interrupted; trying again", reason=str(error))
            except LOST as error:
                cause, self._progress.trouble = type(error).__name__, f"{DatabaseLost(error)}; trying again"
                _log.warning("postgres lost; trying again", error=cause)
            metrics.LEADER.set(0)
            metrics.RESTARTS.labels(cause).inc()
            if time.monotonic() - began > _BACKOFF_S[1]:
                pause = _BACKOFF_S[0]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, _BACKOFF_S[1])

    async def _session(self) -> None:
        connection = await connect(self._postgres, _COMMAND_TIMEOUT_S)
        try:
            await migrate(connection)
            await self._lead(connection)
            stream, checkpoint = await self._checkpoint(connection)
            self._progress.log = stream.created
            self._progress.advance(checkpoint)
            self._progress.trouble, self._progress.foreign = None, False
            metrics.LEADER.set(1)
            _log.info("projecting", after=checkpoint)
            await self._follow(connection, stream, checkpoint)
        finally:
            # A connection that is stuck in a dead network must not hold up the end.
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)
            connection.terminate()

    async def _lead(self, connection: asyncpg.Connection) -> None:
        """Returns holding the lock; until then shows what the projector that holds it has done."""
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            found = await tables.checkpoint(connection)
            state = await self._stream.state()
            self._progress.trouble = _mismatch(found[0], state) if found else None
            self._progress.foreign = self._progress.trouble is not None
            self._progress.log = found[0].created if found else None
            self._progress.advance(found[1] if found else 0)
            self._progress.heard(state.last_seq)
            await asyncio.sleep(_STANDBY_POLL_S)

    async def _checkpoint(self, connection: asyncpg.Connection) -> tuple[StreamState, int]:
        """The log, and where in it to go on; raises StreamChanged."""
        stream = await self._stream.state()
        self._progress.heard(stream.last_seq)
        found = await tables.checkpoint(connection)
        if found is None:
            if stream.first_seq > 1:
                raise StreamChanged(
                    f"the log begins at sequence {stream.first_seq}: what came before is gone and the view would be "
                    "wrong; restore the log from a backup"
                )
            await tables.begin(connection, stream)
            return stream, 0
        if reason := _mismatch(found[0], stream):
            raise StreamChanged(reason)
        return stream, found[1]

    async def _follow(self, connection: asyncpg.Connection, stream: StreamState, checkpoint: int) -> None:
        """Applies what comes, while watching the log's end; raises what ends the session."""
        arrived: asyncio.Queue[Stored] = asyncio.Queue(_BATCH_EVENTS)
        work = [
            asyncio.create_task(self._read(checkpoint + 1, arrived)),
            asyncio.create_task(self._apply(connection, checkpoint, arrived)),
            asyncio.create_task(self._watch(stream)),
            asyncio.create_task(_closed(connection)),
        ]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*work)

    async def _read(self, start_seq: int, arrived: asyncio.Queue[Stored]) -> None:
        async for message in self._stream.messages(start_seq):
            self._progress.heard(max(self._progress.end, message.seq + message.pending))
            await arrived.put(message)

    async def _apply(self, connection: asyncpg.Connection, checkpoint: int, arrived: asyncio.Queue[Stored]) -> None:
        while True:
            messages = [await arrived.get()]
            size = len(messages[0].data)
            while len(messages) < _BATCH_EVENTS and size < _BATCH_BYTES and not arrived.empty():
                messages.append(arrived.get_nowait())
                size += len(messages[-1].data)
            failpoint.reach("projections.read")
            checkpoint = await apply_batch(connection, checkpoint, messages)
            self._progress.advance(checkpoint)

    async def _watch(self, ours: StreamState) -> None:
        """Hears where the log ends, and whether it is still the same log; a broker that is away is no reason to end."""
        while True:
            with contextlib.suppress(LogUnavailable):
                projected = self._progress.seq
                stream = await self._stream.state()
                if reason := _mismatch(replace(ours, last_seq=projected), stream):
                    raise StreamChanged(reason)
                self._progress.heard(max(stream.last_seq, self._progress.seq))
            await asyncio.sleep(_END_POLL_S)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks until they have ended; their results and errors are not looked at.

    Once is not always enough: before Python 3.12 asyncio.wait_for, which nats-py uses, swallows a cancellation that
    comes in the same turn of the loop as its result.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _closed(connection: asyncpg.Connection) -> None:
    """Raises ConnectionError when the database has closed the connection, also while nothing is sent on it."""
    closed = asyncio.Event()
    connection.add_termination_listener(lambda _: closed.set())
    if not connection.is_closed():
        await closed.wait()
    raise ConnectionError("the connection to Postgres was closed")


async def apply_batch(connection: asyncpg.Connection, checkpoint: int, messages: Sequence[Stored]) -> int:
    """Applies messages after the checkpoint, in one transaction with it; returns the new checkpoint.

    Messages at or before the checkpoint are passed over. A message that the tables can't hold is stored as raw bytes.
    """
    fresh = [message for message in messages if message.seq > checkpoint]
    if not fresh:
        return checkpoint
    try:
        return await _transact(connection, checkpoint, fresh, {})
    except _UNFIT:
        for message in fresh:
            try:
                checkpoint = await _transact(connection, checkpoint, [message], {})
            except _UNFIT as error:
                reason = f"message {message.seq} on {message.subject}: the view can't hold it ({type(error).__name__})"
                _log.error("event can't be projected; kept as raw bytes", why=reason)
                checkpoint = await _transact(connection, checkpoint, [message], {message.seq: reason})
        return checkpoint


async def _transact(
    connection: asyncpg.Connection, checkpoint: int, messages: Sequence[Stored], refused: dict[int, str]
) -> int:
    began = time.monotonic()
    last = messages[-1].seq
    async with connection.transaction():
        known = await tables.task_rows(connection, {task_of(message) for message in messages})
        batch = project(known, messages, refused)
        await tables.write(connection, batch, checkpoint, last)
        failpoint.reach("projections.written")
    failpoint.reach("projections.committed")
    metrics.TRANSACTION.observe(time.monotonic() - began)
    metrics.BATCHES.inc()
    for row in batch.events:
        if row.undecodable is None:
            metrics.EVENTS.labels(row.kind).inc()
        else:
            metrics.UNDECODABLE.inc()
            if row.seq not in refused:
                _log.error("event can't be read; kept as raw bytes", task=row.task_id, seq=row.seq, why=row.undecodable)
    return last


async def rebuild(postgres: PostgresSettings, stream: EventStream) -> int:
    """Empties the view and replays the whole log as it stands now; returns the last sequence applied.

    Raises ProjectorActive while another process projects, and StreamChanged when the log's beginning is gone, since
    nothing could then be rebuilt; the tables are left as they are.
    """
    await stream.connect()
    state = await stream.state()
    if state.first_seq > 1:
        raise StreamChanged(f"the log begins at sequence {state.first_seq}: its beginning is gone, nothing was dropped")
    connection = await connect(postgres, _COMMAND_TIMEOUT_S)
    try:
        await migrate(connection)
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise ProjectorActive("another process projects into this database; stop it, then rebuild")
        async with connection.transaction():
            await tables.clear(connection)
            await tables.begin(connection, state)
        checkpoint = 0
        pending: list[Stored] = []
        async with contextlib.aclosing(stream.messages(1)) as messages:
            while checkpoint < state.last_seq:
                pending.append(await anext(messages))
                if len(pending) == _BATCH_EVENTS or pending[-1].seq >= state.last_seq:
                    checkpoint = await apply_batch(connection, checkpoint, pending)
                    pending = []
        return checkpoint
    finally:
        await connection.close()


def _mismatch(ours: StreamState, stream: StreamState) -> str | None:
    if ours.created != stream.created:
        return _recreated(ours, stream)
    if stream.last_seq < ours.last_seq:
        return (
            f"the log ends at sequence {stream.last_seq}, the view at {ours.last_seq}: events were lost, or an older "
            f"copy of the log was restored; restore the newer log, or {_REBUILD}"
        )
    if stream.first_seq > ours.last_seq + 1:
        return (
            f"the log begins at sequence {stream.first_seq}, the view ends at {ours.last_seq}: "
            "the events between are gone; restore the log from a backup"
        )
    return None


def _recreated(ours: StreamState, stream: StreamState) -> str:
    return (
        f"the log was made anew at {stream.created}; the view comes from the one of {ours.created}. "
        f"The two are never mixed: connect to the old log, or {_REBUILD}"
    )
