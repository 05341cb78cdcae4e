"""The event log: append with an expectation, read a task, follow everything (events/README.md).

Errors, all of them LogError:
    Conflict        somebody appended in between, or the id is stored already: read after the expectation, decide again
    TaskEnded       the task's last event is terminal
    Forbidden       the broker does not let this service write this subject, or read the log
    TooLarge        the message would pass the stream's limit
    LogFull         the stream has reached its size: nothing can be appended until an operator makes room
    LogUnavailable  no answer within the deadline: the outcome is unknown, the same append may be repeated
    ChainBroken     what is stored is not what was written: version or hash of a task's events don't fit
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events import direct, schema
from octollm.events.bus import denials
from octollm.events.direct import DirectGetDenied, DirectGetFailed, Stored
from octollm.events.envelope import Event, NewEvent, Position, envelope

T = TypeVar("T")

STREAM = "EVENTS"
MAX_MESSAGE_BYTES = 262_144
"""`max_msg_size` of EVENTS: headers and body together."""

_CONFLICTS = (10071, 10164)
"""Wrong last sequence; the second where a replicated stream is just storing another event of the task."""

_STORE_FULL = (10077, 10047, 10023, 10028)
"""The stream's, the server's, the account's store is full."""

_UNSETTLED = (10158, 10008)
"""A replicated stream is just storing this very id, or a cluster is without a leader."""

_READ_BATCH = 256
_ATTEMPT_S = 2.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5

TIME_UNKNOWN = datetime.fromtimestamp(0, UTC)
"""`stored_at` of an event as `append` returns it: the broker's ack carries no time."""


class LogError(Exception):
    """Base of the log's errors."""


class Conflict(LogError):
    """The task moved on since `expected`."""

    def __init__(self, task_id: str, expected: Position, duplicate: bool) -> None:
        what = "the same event is stored already" if duplicate else "another event was appended"
        super().__init__(f"task {task_id}: {what} after sequence {expected.seq}")
        self.task_id = task_id
        self.expected = expected
        self.duplicate = duplicate


class TaskEnded(LogError):
    """Nobody appends to a task that has ended."""


class Forbidden(LogError):
    """The broker refuses this service's publish or read."""


class TooLarge(LogError):
    """The event does not fit into a message."""


class LogFull(LogError):
    """The stream is at its limit."""


class LogUnavailable(LogError):
    """No answer from the broker within the deadline."""


class ChainBroken(LogError):
    """Stored events of a task don't follow one another."""


class Log:
    """The log as one service sees it; `source` is the service's name."""

    def __init__(self, client: Client, source: str, deadline_s: float = 10.0) -> None:
        self._client = client
        self._source = source
        self._deadline_s = deadline_s

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Event:
        """Appends one event right after `expected`; its `stored_at` is TIME_UNKNOWN, so no fold may depend on that.

        Repeats the same publish while the outcome is unknown; a repeat of a stored one ends in Conflict.
        """
        if expected.terminal:
            raise TaskEnded(f"task {task_id} has ended; {new.kind} was not appended")
        subject = f"{new.kind}.{task_id}"
        body = schema.encode(new.payload)
        headers = envelope(task_id, new, expected, self._source)
        guarded = headers | {
            "Nats-Expected-Last-Subject-Sequence": str(expected.seq),
            "Nats-Expected-Last-Subject-Sequence-Subject": f"*.*.{task_id}",
        }
        size = len(body) + sum(len(name) + len(value) + 4 for name, value in guarded.items()) + 12
        if size > MAX_MESSAGE_BYTES:
            raise TooLarge(f"task {task_id}: {new.kind} needs {size} bytes, {MAX_MESSAGE_BYTES} is the limit")
        ack = await self._publish(subject, body, guarded, task_id)
        if error := ack.get("error"):
            code = error.get("err_code", 0)
            if code in _CONFLICTS:
                raise Conflict(task_id, expected, duplicate=False)
            if code in _STORE_FULL:
                raise LogFull(f"task {task_id}: {new.kind} was not stored: {error['description']}")
            raise LogError(f"task {task_id}: {new.kind} was refused: {error['description']} ({code})")
        if ack.get("duplicate"):
            raise Conflict(task_id, expected, duplicate=True)
        del headers["Nats-Msg-Id"]
        return Event.parse(subject, headers, body, ack["seq"], TIME_UNKNOWN)

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str], task_id: str) -> dict[str, Any]:
        """The broker's ack; repeats what is not settled, raises Forbidden or LogUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._deadline_s
        pause = _FIRST_PAUSE_S
        with denials(self._client, subject) as denied:
            while (left := deadline - loop.time()) > 0:
                request: asyncio.Future[Any] = asyncio.ensure_future(
                    self._client.request(subject, body, timeout=min(_ATTEMPT_S, left), headers=dict(headers))
                )
                both: set[asyncio.Future[Any]] = {request, denied}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if denied.done():
                    request.cancel()
                    raise Forbidden(f"task {task_id}: {self._source} may not write {subject}")
                with contextlib.suppress(
                    nats_errors.TimeoutError, nats_errors.NoRespondersError, nats_errors.ConnectionClosedError
                ):
                    ack: dict[str, Any] = json.loads((await request).data)
                    if _is_settled(ack.get("error")):
                        return ack
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        raise LogUnavailable(f"task {task_id}: no answer to {subject} within {self._deadline_s:g} s")

    async def read(self, task_id: str, after: Position | None = None) -> list[Event]:
        """A task's events in order, from the first or after a position; empty for an unknown task.

        Raises ChainBroken when they don't follow one another, LogUnavailable, Undecodable.
        """
        previous = after or Position.START
        first = previous.seq + 1 if previous.seq else await self._first_seq(task_id)
        events: list[Event] = []
        while first:
            batch = partial(direct.batch, self._client, STREAM, f"*.*.{task_id}", first, _READ_BATCH)
            messages, more = await self._answered(batch)
            for message in messages:
                event = _event(message)
                if event.version != previous.version + 1 or event.prev_hash != previous.hash:
                    raise ChainBroken(
                        f"task {task_id}: event {event.seq} says version {event.version} after {previous.version}"
                        + ("" if event.prev_hash == previous.hash else " and names another hash than the one before")
                    )
                previous = event.position
                events.append(event)
            first = previous.seq + 1 if more and messages else 0
        return events

    async def read_on(self, task_id: str, after: Position) -> list[Event]:
        """What came after the position at which an append conflicted; raises as `read` does.

        Any replica answers a read, and may lag behind the one that refused the append: it is asked again for two
        seconds. Empty, after that, where it was the id alone that was refused.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ATTEMPT_S
        pause = _FIRST_PAUSE_S
        while not (events := await self.read(task_id, after)) and loop.time() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        return events

    async def last_seq(self) -> int:
        """The sequence of the newest event in the log, 0 for none."""
        message = await self._answered(partial(direct.newest, self._client, STREAM))
        return message.seq if message else 0

    async def follow(
        self, start_seq: int = 1, subjects: Sequence[str] = (">",), batch: int = 256
    ) -> AsyncGenerator[Event, None]:
        """Every event from `start_seq` on, in order, for ever; subjects are NATS wildcards of three tokens, or `>`.

        Survives reconnects. Raises Undecodable for a message that is no event, Forbidden.
        """
        messages = direct.follow(self._client, STREAM, start_seq, subjects, batch)
        with self._told():
            async with contextlib.aclosing(messages):
                async for message in messages:
                    yield _event(message)

    async def _first_seq(self, task_id: str) -> int:
        """Where a task begins: task.received, or task.rejected for one that never began; 0 for neither."""
        for kind in ("task.received", "task.rejected"):
            message = await self._answered(partial(direct.last, self._client, STREAM, f"{kind}.{task_id}"))
            if message:
                return message.seq
        return 0

    async def _answered(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """What a direct get tells; it is repeated while it is not answered. Raises Forbidden or LogUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._deadline_s
        pause = _FIRST_PAUSE_S
        with self._told():
            while True:
                try:
                    return await ask(min(_ATTEMPT_S, deadline - loop.time()))
                except DirectGetDenied:
                    raise
                except DirectGetFailed:
                    if loop.time() + pause >= deadline:
                        raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The log's errors for those of a direct get."""
        try:
            yield
        except DirectGetDenied as error:
            raise Forbidden(f"{self._source} may not read the log: {error}") from error
        except DirectGetFailed as error:
            raise LogUnavailable(str(error)) from error


def _is_settled(error: dict[str, Any] | None) -> bool:
    """Whether the same publish would be answered the same again."""
    # What a cluster's leader can't pass on to the others has a status, and no code.
    return not error or not (error.get("err_code") in _UNSETTLED or (error["code"] == 503 and "err_code" not in error))


def _event(message: Stored) -> Event:
    """The event in a stored message: of its headers the envelope, not what guarded the append."""
    kept = {name: value for name, value in message.headers.items() if name == "content-type" or name.startswith("ce-")}
    return Event.parse(message.subject, kept, message.data, message.seq, message.stored_at)
