"""The log over NATS: connected within a bound, read and followed for one command."""

import contextlib
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from urllib.parse import urlsplit

import structlog

from octollm.cli.failure import Exit, Failure
from octollm.events.bus import Client, connect
from octollm.events.config import NatsSettings
from octollm.events.direct import DirectGetDenied, DirectGetFailed
from octollm.events.envelope import Event, Undecodable
from octollm.events.log import Log, LogError

CONNECT_S = 5.0
DEFAULT_PORT = 4222


@contextlib.asynccontextmanager
async def connected(settings: NatsSettings, name: str = "octo") -> AsyncIterator[Client]:
    """A connection; raises Failure when the broker doesn't answer within CONNECT_S. Its troubles are told on stderr."""
    _warn_on_stderr()
    host, port = _place(settings.url)
    where = f"nats://{host}:{port}"
    try:
        # The client would try for ever; a command shouldn't.
        socket.create_connection((host, port), CONNECT_S).close()
        client = await connect(settings, name, patience_s=CONNECT_S)
    except (TimeoutError, ConnectionError) as error:
        reason = getattr(error, "strerror", None) or f"no answer within {CONNECT_S:g} s"
        raise Failure.unreachable("the event log", where, reason) from error
    except OSError as error:
        raise Failure.unreachable("the event log", where, error.strerror or str(error)) from error
    try:
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def reading(what: str = "the log") -> Iterator[None]:
    """Direct gets whose errors become Failures."""
    try:
        yield
    except DirectGetDenied as error:
        hint = f"name the key of somebody who may read {what} (OCTO_NATS__NKEY_FILE)"
        raise Failure(str(error), hint, Exit.INFRASTRUCTURE, code="FORBIDDEN") from error
    except DirectGetFailed as error:
        hint = "run `octo doctor`; nothing was changed by reading"
        raise Failure(f"{what} can't be read: {error}", hint, Exit.INFRASTRUCTURE) from error


@contextlib.asynccontextmanager
async def opened(settings: NatsSettings) -> AsyncIterator[Log]:
    """The log as `octo` reads it; the log's errors become Failures."""
    async with connected(settings) as client:
        try:
            yield Log(client, "octo")
        except (LogError, Undecodable) as error:
            hint = "run `octo doctor`; nothing was changed by reading"
            raise Failure(str(error), hint, Exit.INFRASTRUCTURE) from error


async def task_events(log: Log, task_id: str) -> AsyncGenerator[Event, None]:
    """A task's events from its first to its last, waiting for those to come; raises Failure for an unknown task."""
    before = await log.last_seq()
    recorded = await log.read(task_id)
    if not recorded:
        raise Failure.of_code("NOT_FOUND", "the log holds nothing about this task", task_id=task_id)
    for event in recorded:
        yield event
    last = recorded[-1]
    if last.terminal:
        return
    async with contextlib.aclosing(log.follow(max(before, last.seq) + 1, [f"*.*.{task_id}"])) as events:
        async for event in events:
            yield event
            if event.terminal:
                return


def _place(url: str) -> tuple[str, int]:
    """Host and port of the first server; credentials stay out of messages."""
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "://" in first else f"nats://{first}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if not parts.hostname or not port:
        raise Failure.usage("OCTO_NATS__URL is no NATS URL", "give one like nats://127.0.0.1:4222")
    return parts.hostname, port


def _warn_on_stderr() -> None:
    structlog.configure(
        processors=[lambda _logger, _method, entry: f"octo: {entry['event']}"],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
