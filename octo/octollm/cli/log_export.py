"""Messages of the log as they are stored, readable or not: from the broker, to a file, and back from one."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from octollm.cli.failure import Failure
from octollm.cli.log_reader import connected, reading
from octollm.cli.terminal import Terminal
from octollm.events.chain import Message
from octollm.events.config import NatsSettings
from octollm.events.direct import Stored, batch
from octollm.events.log import STREAM

STDIN = Path("-")
LONGEST_LINE = 1 << 20
"""Bytes of a line: a stored message has 256 KiB at most, and base64 makes a third more of it."""

_BATCH = 256
_ANSWER_S = 10.0

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


async def stored(nats: NatsSettings, subject: str) -> AsyncGenerator[tuple[Message, int], None]:
    """What the log holds now on a wildcard, in order, each with the number of messages behind it.

    Raises Failure where the log can't be read.
    """
    async with connected(nats) as client:
        first, more = 1, 1
        while more:
            with reading():
                messages, more = await batch(client, STREAM, subject, first, _BATCH, _ANSWER_S)
            for number, message in enumerate(messages, 1):
                yield _message(message), more + len(messages) - number
                first = message.seq + 1


def _message(message: Stored) -> Message:
    return Message(
        seq=message.seq,
        subject=_text(message.subject),
        headers={_text(name): _text(value) for name, value in message.headers.items()},
        body=message.data,
        stored_at=message.stored_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    )


def _text(text: str) -> str:
    # Bytes that are no UTF-8 come as lone surrogates, which JSON can't carry. An event of ours has none.
    return text.encode("utf-8", "replace").decode()


def recorded(path: Path) -> Iterator[Message]:
    """The messages of an export (- for stdin); raises Failure for what is none, with the line."""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as lines:
            number = 0
            while line := lines.readline(LONGEST_LINE):
                number += 1
                try:
                    yield _decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    reason = f"{path}: line {number} is no exported message: {error}"
                    raise Failure.usage(reason, "make an export with `octo export TASK -o FILE`") from error
    except OSError as error:
        raise Failure.usage(f"{path} can't be read: {error.strerror}", "name a file made by `octo export`") from error


def export(terminal: Terminal, nats: NatsSettings, task_id: str, path: Path | None) -> None:
    """Writes a task's messages; a file appears whole or not at all. Raises Failure."""
    if path is None:
        asyncio.run(_write(nats, task_id, sys.stdout.buffer))
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as target:
            count = asyncio.run(_write(nats, task_id, target))
        part.replace(path)
    except OSError as error:
        raise Failure.usage(f"{path} can't be written: {error.strerror}", "name another file with -o") from error
    finally:
        part.unlink(missing_ok=True)
    terminal.note(f"{count} event(s) of task {task_id} in {path}; octo verify --file {path}")


async def _write(nats: NatsSettings, task_id: str, target: BinaryIO) -> int:
    count = 0
    async with contextlib.aclosing(stored(nats, f"*.*.{task_id}")) as messages:
        async for message, _ in messages:
            target.write(_encoder.encode(message) + b"\n")
            count += 1
    target.flush()
    if not count:
        raise Failure.of_code("NOT_FOUND", "the log holds nothing about this task", task_id=task_id)
    return count
