"""Fixtures of the stack's own tests: each test has a stack, a directory and ports of its own."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from octollm.stack import Service, Stack, StackOptions
from octollm.stack.leftovers import clear
from octollm.stack.state import StackState, read

HERE = Path(__file__).parent


async def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The condition's first true value; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.02)
    return value


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


def fake(*words: str, **more: Any) -> Service:
    return Service(name="fake", port=1, argv=("python", str(HERE / "fake_service.py"), *words), **more)


@pytest.fixture(name="fake")
def _fake() -> Callable[..., Service]:
    return fake


class MakeStack(Protocol):
    def __call__(self, **options: Any) -> Stack: ...


@pytest.fixture
def stack_of() -> MakeStack:
    """Makes an ephemeral stack on free ports, without streams and services unless they are asked for."""

    def make(**options: Any) -> Stack:
        chosen = {"ephemeral": "data_dir" not in options, "ports": "free", "services": (), "bootstrap": None}
        chosen["accounts"] = False
        if "servers" in options:
            options["servers"] = frozenset(options["servers"])
        return Stack(StackOptions(**{**chosen, **options}))

    return make


@dataclass
class Supervising:
    """A stack in a process of its own."""

    data_dir: Path
    process: asyncio.subprocess.Process
    seen: list[list[str]] = field(default_factory=list)

    async def until(self, name: str, state: str) -> None:
        assert self.process.stdout
        async with asyncio.timeout(30):
            while True:
                line = await self.process.stdout.readline()
                if not line:
                    assert self.process.stderr
                    raise AssertionError((await self.process.stderr.read()).decode())
                step = json.loads(line)
                self.seen.append(step)
                if step[:2] == [name, state]:
                    return

    def state(self) -> StackState:
        state = read(self.data_dir)
        assert state
        return state


@asynccontextmanager
async def supervising(data_dir: Path, servers: str, *words: str) -> AsyncIterator[Supervising]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "supervising.py"),
        str(data_dir),
        servers,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Supervising(data_dir, process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
        if last := read(data_dir):
            await clear(last.leftovers, 5)


@pytest.fixture(name="supervising")
def _supervising() -> Callable[..., Any]:
    return supervising


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mode and parents' modes are compared at the end."""
    watched = {path: path.stat().st_mode for path in (tmp_path, *tmp_path.parents)}
    accounts = Path("/etc/passwd").read_bytes()
    yield tmp_path
    assert {path: path.stat().st_mode for path in watched} == watched
    assert Path("/etc/passwd").read_bytes() == accounts
