"""Readers of the log and durable consumers, across lost connections."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from octollm.events import bus, direct
from octollm.events.config import NatsSettings
from octollm.events.consumer import Consumer
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import Log
from octollm.stack import Stack, StackOptions
from tests.events.examples import example
from tests.events.proxy import LossyProxy


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(30):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def write(log: Log, count: int) -> list[int]:
    seqs = []
    for _ in range(count):
        task_id = str(uuid.uuid4())
        new = NewEvent(payload=example("task.received"), causation_id=task_id)
        seqs.append((await log.append(task_id, new, Position.START)).seq)
    return seqs


async def test_follow_starts_anywhere_and_keeps_order(nats: bus.Client) -> None:
    log = Log(nats, "test")
    seqs = await write(log, 10)
    events = await take(log.follow(seqs[3], subjects=("task.received.*",)), 7)
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert set(seqs[3:]) <= {event.seq for event in events} | set(range(events[-1].seq, seqs[-1] + 1))


async def test_follow_waits_for_what_is_not_there_yet(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    waiting = asyncio.create_task(take(log.follow(1, subjects=(f"*.*.{task_id}",)), 1))
    await log.append(task_id, NewEvent(payload=example("task.received"), causation_id=task_id), Position.START)
    assert [event.task_id for event in await waiting] == [task_id]


async def test_who_can_wait_reads_many_messages_at_a_time(nats: bus.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, pace_s, loop = 0, 0.5, asyncio.get_running_loop()
    look = direct.batch

    async def counted(*arguments: Any) -> tuple[list[direct.Stored], int]:
        nonlocal looks
        looks += 1
        return await look(*arguments)

    monkeypatch.setattr(direct, "batch", counted)
    log = Log(nats, "test")
    first, began = (await write(log, 1))[0], loop.time()
    messages = direct.follow(nats, "EVENTS", first, pace_s=pace_s)
    last = first
    async with contextlib.aclosing(messages), asyncio.timeout(60):
        writing = asyncio.create_task(write(log, 100))
        async for message in messages:
            assert message.seq > last or message.seq == first
            last = message.seq
            if writing.done() and last >= writing.result()[-1]:
                break
    # One at its start, one for each pace that has passed, and one that was due.
    assert looks <= 2 + (loop.time() - began) / pace_s


async def test_a_message_lost_on_the_way_is_fetched_again(
    lossy: tuple[LossyProxy, str], nats: bus.Client, task_id: str
) -> None:
    proxy, url = lossy
    client = await bus.connect(NatsSettings(url=url), "test")
    writer = Log(nats, "test")
    proxy.lose = lambda data: proxy.dropped == 0 and f"task.received.{task_id}".encode() in data
    reading = asyncio.create_task(take(Log(client, "test").follow(1, subjects=(f"*.*.{task_id}",)), 2))
    first = await writer.append(
        task_id, NewEvent(payload=example("task.received"), causation_id=task_id), Position.START
    )
    async with asyncio.timeout(20):
        while proxy.dropped == 0:
            await asyncio.sleep(0.01)
    new = NewEvent(payload=example("task.cancel_requested"), causation_id=task_id)
    await writer.append(task_id, new, first.position)
    assert [event.version for event in await reading] == [1, 2]
    await client.close()


async def test_readers_and_consumers_survive_a_broker_restart() -> None:
    options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url), "test")
        log = Log(client, "test")
        before = await write(log, 3)
        follower = log.follow()
        consumer = aiter(Consumer(client, "EVENTS", "planner"))
        assert [event.seq for event in await take_some(follower, 3)] == before
        for _ in range(3):
            await (await anext(consumer)).ack()
        await stack.restart("nats")
        after = await write(log, 3)
        assert [event.seq for event in await take_some(follower, 3)] == after
        async with asyncio.timeout(30):
            assert {(await anext(consumer)).seq for _ in range(3)} == set(after)
        await follower.aclose()
        await client.close()


async def take_some(events: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(30):
        return [await anext(events) for _ in range(count)]


async def test_an_unanswered_delivery_comes_again(nats: bus.Client) -> None:
    await write(Log(nats, "test"), 1)
    deliveries = aiter(Consumer(nats, "EVENTS", "planner"))
    async with asyncio.timeout(20):
        delivery = await anext(deliveries)
        seq = delivery.seq
        await delivery.nak(0.05)
        async for delivery in deliveries:
            await delivery.ack()
            if delivery.seq == seq:
                break
    assert delivery.redelivered
    assert delivery.num_delivered == 2


@pytest.mark.parametrize("batch", [1, 64])
async def test_close_ends_the_iteration(nats: bus.Client, batch: int) -> None:
    consumer = Consumer(nats, "EVENTS", "executor", batch=batch)
    reading = asyncio.create_task(anext(aiter(consumer), None))
    await consumer.close()
    assert await asyncio.wait_for(reading, 5) is None
