"""Deadlines outlast the orchestrator and the stream that holds them: what is open by the log ends in time."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.errors import NotFoundError

from octollm.events import bus, streams
from octollm.events.carrier import ErrorCode, TaskFailed
from octollm.events.config import NatsSettings
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import Log
from octollm.stack import Stack, StackOptions
from tests.orchestrator.arms import DEADLINE_S, until, until_ended
from tests.orchestrator.history import PRIVATE_KEY, received

BUDGET_S = 3


class World:
    """A broker, one task that nobody plans, and an orchestrator process that comes and goes."""

    def __init__(self, stack: Stack, client: bus.Client, key: Path) -> None:
        self.client = client
        self.js = client.jetstream()
        self.log = Log(client, "reflex")
        self._stack = stack
        self._key = key

    async def submit(self, task_id: str) -> Event:
        new = NewEvent(payload=received(seconds=BUDGET_S), causation_id=task_id)
        return await self.log.append(task_id, new, Position.START)

    @asynccontextmanager
    async def orchestrator(self) -> AsyncIterator[None]:
        """Killed at the end, as by `kill -9`."""
        settings = {
            "OCTO_ORCHESTRATOR__PORT": str(_free_port()),
            "OCTO_ORCHESTRATOR__CAPABILITY_KEY_FILE": str(self._key),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "octollm.orchestrator"),
            env=os.environ | settings | {"OCTO_NATS__URL": self._stack.nats_url},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
            assert process.returncode is None, "it died by itself"
        finally:
            process.kill()
            await process.wait()

    async def has_timer(self, task_id: str, subject: str = "timer.set.{}.deadline") -> bool:
        try:
            await self.js.get_last_msg("TIMERS", subject.format(task_id))
        except NotFoundError:
            return False
        return True

    async def timed_out(self, task_id: str) -> bool:
        """The task ends, at its deadline and not before."""
        events = await until_ended(self.log, task_id)
        ended = events[-1].payload
        assert isinstance(ended, TaskFailed)
        assert (events[-1].stored_at - events[0].stored_at).total_seconds() >= BUDGET_S
        return ended.code is ErrorCode.TIMEOUT


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "capability.key"
    file.write_text(PRIVATE_KEY)
    file.chmod(0o600)
    return file


@asynccontextmanager
async def _world(key: Path) -> AsyncIterator[World]:
    options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url), "test")
        try:
            yield World(stack, client, key)
        finally:
            await client.close()


async def test_a_deadline_that_passes_while_no_orchestrator_runs_is_acted_on_by_the_next(
    key: Path, task_id: str
) -> None:
    async with _world(key) as world:
        async with world.orchestrator():
            await world.submit(task_id)
            await until(lambda: world.has_timer(task_id), "the deadline is set")
        await until(lambda: world.has_timer(task_id, "timer.fired.{}"), "the timer has fired")
        assert len(await world.log.read(task_id)) == 1
        async with world.orchestrator():
            assert await world.timed_out(task_id)


async def test_deadlines_that_are_lost_while_no_orchestrator_runs_are_kept(key: Path, task_id: str) -> None:
    async with _world(key) as world:
        async with world.orchestrator():
            received_at = (await world.submit(task_id)).seq
            await until(lambda: world.has_timer(task_id), "the deadline is set")

            async def acked() -> bool:
                floor = (await world.js.consumer_info("EVENTS", "saga")).ack_floor
                return floor is not None and floor.stream_seq == received_at

            await until(acked, "the event does not come again")
        await world.js.purge_stream("TIMERS")
        async with world.orchestrator():
            assert await world.timed_out(task_id)


async def test_a_stream_of_deadlines_that_is_made_anew_is_filled_again(key: Path, task_id: str) -> None:
    async with _world(key) as world, world.orchestrator():
        await world.submit(task_id)
        await until(lambda: world.has_timer(task_id), "the deadline is set")
        await world.js.delete_stream("TIMERS")
        await streams.ensure(world.client)
        await until(lambda: world.has_timer(task_id), f"it is set again within {DEADLINE_S} s")
        assert await world.timed_out(task_id)
