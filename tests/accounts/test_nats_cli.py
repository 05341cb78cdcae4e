"""What people see with the plain nats CLI and no key, on a stack with accounts (tests/nats-cli builds it)."""

import asyncio
import contextlib
import json
import os
import re
import uuid
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Conflict, Log
from octollm.stack import Stack
from tests.events.examples import example

CLI = Path(__file__).parents[2] / "target" / "nats-cli" / "nats"
DEADLINE_S = 30.0
SECRET = "jane.doe@example.org"  # what a screen would have taken out

RECEIVED = re.compile(r'^\[#\d+\] Received on "([^"]*)"$', re.MULTILINE)

Stored = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture(autouse=True)
def built() -> None:
    if not CLI.exists():
        pytest.skip("the nats CLI is not built: tests/nats-cli, which needs Go")


async def start(stack: Stack, home: Path, *arguments: str) -> Process:
    """The CLI as somebody runs it who has no settings and no key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    environment = kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    command = [str(CLI), "--server", stack.nats_url, *arguments]
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=STDOUT)


async def run(stack: Stack, home: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output."""
    process = await start(stack, home, *arguments)
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


class Tail:
    """A running `nats sub`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.output = ""

    async def shows(self, subject: str) -> bool:
        """Reads on until a message on this subject is shown, or for half a second."""
        assert self._process.stdout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while subject not in self.subjects:
                    line = await self._process.stdout.readline()
                    assert line, self.output
                    self.output += line.decode()
        return subject in self.subjects

    @property
    def subjects(self) -> list[str]:
        return RECEIVED.findall(self.output)


@contextlib.asynccontextmanager
async def tailing(stack: Stack, home: Path, *subjects: str) -> AsyncIterator[Tail]:
    process = await start(stack, home, "sub", *subjects)
    try:
        yield Tail(process)
    finally:
        process.terminate()
        await process.communicate()


@contextlib.asynccontextmanager
async def log_of(stack: Stack, service: str) -> AsyncIterator[Log]:
    client = await bus.connect(NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file(service)), service)
    try:
        yield Log(client, service)
    finally:
        await client.close()


async def reject(log: Log) -> str:
    """Appends an event of a task of its own; its subject."""
    task_id = str(uuid.uuid4())
    new = NewEvent(payload=example("task.rejected"), causation_id=task_id)
    return (await log.append(task_id, new, Position.START)).subject


async def until_shown(tail: Tail, log: Log) -> None:
    """Until the tail shows something that was written just now: it listens, and all from before has been shown."""
    async with asyncio.timeout(DEADLINE_S):
        while not await tail.shows(await reject(log)):
            pass


@pytest.mark.parametrize("wildcard", ["task.>", "*.*.{}"])
async def test_sub_shows_exactly_what_is_stored(wildcard: str, stack: Stack, tmp_path: Path, task_id: str) -> None:
    async with (
        log_of(stack, "reflex") as reflex,
        log_of(stack, "planner") as planner,
        log_of(stack, "orchestrator") as orchestrator,
        tailing(stack, tmp_path, wildcard.format(task_id), "task.rejected.*") as tail,
    ):
        await until_shown(tail, reflex)
        submission = json.dumps({"task_id": task_id, "goal": f"write to {SECRET}"})
        status, output = await run(stack, tmp_path, "req", "task.submit", submission)
        assert (status, '"stream":"COMMANDS"' in output) == (0, True)

        first = await reflex.append(
            task_id, NewEvent(payload=example("task.received"), causation_id=task_id), Position.START
        )
        plan = NewEvent(payload=example("task.planned"), causation_id=first.id)
        second = await planner.append(task_id, plan, first.position)
        with pytest.raises(Conflict):
            await planner.append(
                task_id, NewEvent(payload=example("plan.failed"), causation_id=first.id), first.position
            )
        dispatch = NewEvent(payload=example("step.dispatched"), causation_id=second.id, key="1/a/1")
        third = await orchestrator.append(task_id, dispatch, second.position)
        end = NewEvent(payload=example("task.failed"), causation_id=third.id)
        last = await orchestrator.append(task_id, end, third.position)
        await until_shown(tail, reflex)

    stored = [event for event in (first, second, third, last) if "*" in wildcard or event.kind.startswith("task.")]
    assert [name for name in tail.subjects if name.endswith(task_id)] == [event.subject for event in stored]
    assert all(name.endswith(task_id) or name.startswith("task.rejected.") for name in tail.subjects)
    for event in stored:
        assert event.body.decode() in tail.output
        assert f"Nats-Sequence: {event.seq}\n" in tail.output
    assert "task.submit" not in tail.subjects
    assert SECRET not in tail.output


async def test_submissions_can_not_be_listened_to(stack: Stack, tmp_path: Path) -> None:
    status, output = await run(stack, tmp_path, "sub", "task.submit")
    assert status == 1
    assert 'Permissions Violation for Subscription to "task.submit"' in output


@pytest.mark.parametrize("subject", ["task.cancel", "task.completed.{}", "task.received.{}"])
async def test_nothing_else_can_be_published(
    subject: str, stack: Stack, stored: Stored, tmp_path: Path, task_id: str
) -> None:
    subject = subject.format(task_id)
    before = await stored()
    status, output = await run(stack, tmp_path, "pub", subject, "{}")
    assert status == 1
    assert f'Permissions Violation for Publish to "{subject}"' in output
    assert await stored() == before
