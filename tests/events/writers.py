"""The log as either language writes it, behind one interface: append, or Conflict; read."""

import asyncio
import contextlib
import itertools
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Conflict, Log, LogError, LogUnavailable

ROOT = Path(__file__).parents[2]

Language = Literal["python", "rust"]


class Writer(Protocol):
    """What a service does with the log. Errors are those of `octollm.events.log`."""

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Position: ...

    async def read(self, task_id: str, after: Position | None = None) -> list[tuple[str, Position]]:
        """Ids and positions."""


class _Python:
    def __init__(self, log: Log) -> None:
        self._log = log

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Position:
        return (await self._log.append(task_id, new, expected)).position

    async def read(self, task_id: str, after: Position | None = None) -> list[tuple[str, Position]]:
        return [(event.id, event.position) for event in await self._log.read(task_id, after)]


class _Rust:
    """events/rust/examples/log.rs"""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tickets = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Position:
        answer = await self._ask(
            task_id=task_id,
            kind=new.kind,
            key=new.key,
            causation_id=new.causation_id,
            payload=msgspec.to_builtins(new.payload),
            expected=asdict(expected),
        )
        if conflict := answer.get("conflict"):
            raise Conflict(task_id, expected, conflict["duplicate"])
        return Position(**answer)

    async def read(self, task_id: str, after: Position | None = None) -> list[tuple[str, Position]]:
        answer = await self._ask(task_id=task_id, after=asdict(after) if after else None)
        return [(event["id"], Position(**event["position"])) for event in answer["events"]]

    async def _ask(self, **request: object) -> dict[str, Any]:
        ticket = next(self._tickets)
        future = self._asked[ticket] = asyncio.get_running_loop().create_future()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"ticket": ticket, **request}).encode() + b"\n")
        await self._process.stdin.drain()
        answer: dict[str, Any] = await future
        if "unavailable" in answer:
            raise LogUnavailable(answer["unavailable"])
        if "error" in answer:
            raise LogError(answer["error"])
        return answer

    async def take_answers(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            answer = json.loads(line)
            future = self._asked.pop(answer.pop("ticket"))
            if not future.done():  # nobody waits any more
                future.set_result(answer)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(LogError("the Rust program has ended"))


async def _program() -> str:
    """The Rust program: from where the built services are (OCTO_BIN_DIR), else built now."""
    target = Path(os.environ.get("OCTO_BIN_DIR") or "target/debug")
    if not os.environ.get("OCTO_BIN_DIR"):
        command = ["build", "--quiet", "-p", "octollm-events", "--all-features", "--example", "log"]
        cargo = await asyncio.create_subprocess_exec("cargo", *command, cwd=ROOT)
        assert await cargo.wait() == 0, "cargo build failed"
    return str(ROOT / target / "examples" / "log")


@contextlib.asynccontextmanager
async def writer(
    language: Language, url: str, service: str = "test", environment: Mapping[str, str] | None = None
) -> AsyncIterator[Writer]:
    """A connection of its own to the broker at `url`."""
    if language == "python":
        client = await bus.connect(NatsSettings(url=url), service)
        try:
            yield _Python(Log(client, service))
        finally:
            await client.close()
        return
    process = await asyncio.create_subprocess_exec(
        *(await _program(), service),
        env={**os.environ, "OCTO_NATS__URL": url, **(environment or {})},
        stdin=PIPE,
        stdout=PIPE,
        limit=2**20,
    )
    rust = _Rust(process)
    answers = asyncio.create_task(rust.take_answers())
    try:
        yield rust
    finally:
        assert process.stdin
        process.stdin.close()
        await answers
        assert await process.wait() == 0
