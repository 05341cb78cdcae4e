"""No message waits for its ack_wait because of what happens to a connection: each comes with its first delivery."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Log
from octollm.events.pull import Pull, Pulled
from octollm.stack import Stack, StackOptions
from tests.events.examples import example
from tests.events.proxy import LossyProxy

DEADLINE_S = 30.0

GIVEN_BACK_S = 4.0
"""Less than any ack_wait."""

Happening = Callable[[], Awaitable[None]]
Durable = Callable[[], Pull]


class World:
    """A broker with accounts, a service behind a proxy, and reflex, which writes what the service is to get."""

    def __init__(self, stack: Stack, proxy: LossyProxy, service: bus.Client, reflex: bus.Client) -> None:
        self.service = service
        self._stack = stack
        self._proxy = proxy
        self._reflex = reflex

    async def submit(self) -> str:
        task_id = str(uuid.uuid4())
        new = NewEvent(payload=example("task.received"), causation_id=task_id)
        await Log(self._reflex, "reflex").append(task_id, new, Position.START)
        return task_id

    async def restart(self) -> None:
        await self._stack.restart("nats")

    async def cut(self) -> None:
        """Ends the service's connection; the broker stays."""
        self._proxy.lose, self._proxy.cuts = (lambda _: True), True
        await self.service.publish("_INBOX_nobody.listens")  # refused, which is what is lost

        async with asyncio.timeout(DEADLINE_S):
            while not self._proxy.dropped:
                await asyncio.sleep(0.01)
        self._proxy.lose, self._proxy.cuts = (lambda _: False), False

    async def reconnected(self, cause: Happening) -> None:
        """Returns when the service is connected again, before anything else has run."""
        made = asyncio.Event()

        with bus.watched(self.service, bus.Watcher(made=made.set)):
            await cause()
            async with asyncio.timeout(DEADLINE_S):
                await made.wait()


@pytest_asyncio.fixture(params=["orchestrator", "planner"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    options = StackOptions(ephemeral=True, ports="free", servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack, AsyncExitStack() as exits:
        proxy = LossyProxy(stack.nats_url)
        url = await proxy.start()
        exits.push_async_callback(proxy.stop)
        clients = []
        for name, where in ((request.param, url), ("reflex", stack.nats_url)):
            client = await bus.connect(NatsSettings(url=where, nkey_file=stack.nkey_file(name)), name)
            exits.push_async_callback(client.close)
            clients.append(client)
        yield World(stack, proxy, *clients)


@pytest.fixture
def durable(world: World, request: pytest.FixtureRequest) -> Durable:
    """Makes readers of the service's consumer."""
    name = {"orchestrator": "saga", "planner": "planner"}[request.node.callspec.params["world"]]
    return lambda: Pull(world.service, "EVENTS", name, batch=64)


async def _next(world: World, pulled: AsyncIterator[Pulled]) -> Pulled:
    async with asyncio.timeout(DEADLINE_S):
        message = await anext(pulled)
    await world.service.publish(message.reply, b"+ACK")
    return message


async def test_right_after_a_start(world: World, durable: Durable) -> None:
    next_one = asyncio.ensure_future(_next(world, aiter(durable())))
    await asyncio.sleep(0)
    task_id = await world.submit()
    message = await next_one
    assert (message.subject, message.delivered) == (f"task.received.{task_id}", 1)


@pytest.mark.parametrize("cause", ["the broker starts again", "the connection is cut"])
async def test_right_after_a_reconnect(world: World, durable: Durable, cause: str) -> None:
    pulled = aiter(durable())
    await world.submit()
    await _next(world, pulled)
    waiting = asyncio.ensure_future(_next(world, pulled))
    await asyncio.sleep(0)
    await world.reconnected(world.cut if cause == "the connection is cut" else world.restart)
    task_id = await world.submit()
    message = await waiting
    assert (message.subject, message.delivered) == (f"task.received.{task_id}", 1)


async def test_what_a_reader_leaves_goes_to_the_next_one(world: World, durable: Durable) -> None:
    reader, found = durable(), set[str]()
    tasks = {await world.submit() for _ in range(8)}
    async for message in reader:
        found.add(message.subject.removeprefix("task.received."))
        await world.service.publish(message.reply, b"+ACK")
        await reader.close()
    assert len(found) == 1
    following = aiter(durable())
    async with asyncio.timeout(GIVEN_BACK_S):
        while found < tasks:
            found.add((await anext(following)).subject.removeprefix("task.received."))
