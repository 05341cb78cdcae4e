"""The rules of append and read, on a real server."""

import asyncio
import itertools
import uuid

import msgspec
import pytest

from octollm.events import bus, schema
from octollm.events.config import NatsSettings
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import ChainBroken, Conflict, Log, LogUnavailable, TaskEnded, TooLarge
from tests.events.examples import example
from tests.events.proxy import LossyProxy
from tests.events.writers import writer


def received(task_id: str) -> NewEvent:
    return NewEvent(payload=example("task.received"), causation_id=task_id)


def fact(task_id: str, key: str) -> NewEvent:
    return NewEvent(payload=example("task.cancel_requested"), causation_id=task_id, key=key)


def assert_chain(events: list[Event], count: int) -> None:
    assert [event.version for event in events] == list(range(1, count + 1))
    assert len({event.id for event in events}) == count
    assert all(later.prev_hash == earlier.hash for earlier, later in itertools.pairwise(events))


async def test_a_task_is_read_as_it_was_written(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    second = await log.append(task_id, fact(task_id, "a"), first.position)
    events = await log.read(task_id)
    assert [event.position for event in events] == [first.position, second.position]
    assert events[0].payload == example("task.received")
    assert events[0].stored_at.tzinfo is not None
    assert await log.read(task_id, after=first.position) == events[1:]
    assert await log.read(str(uuid.uuid4())) == []


async def test_a_rejected_task_is_read_too(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    await log.append(task_id, NewEvent(payload=example("task.rejected"), causation_id=task_id), Position.START)
    assert [event.kind for event in await log.read(task_id)] == ["task.rejected"]


async def test_reading_goes_on_past_one_batch(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    position = (await log.append(task_id, received(task_id), Position.START)).position
    for number in range(299):
        position = (await log.append(task_id, fact(task_id, str(number)), position)).position
    assert_chain(await log.read(task_id), 300)


async def test_a_stale_expectation_is_a_conflict(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    await log.append(task_id, fact(task_id, "a"), first.position)
    with pytest.raises(Conflict) as caught:
        await log.append(task_id, fact(task_id, "b"), first.position)
    assert not caught.value.duplicate
    assert len(await log.read(task_id)) == 2


async def test_a_repeated_id_is_a_conflict_too(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    second = await log.append(task_id, fact(task_id, "a"), first.position)
    with pytest.raises(Conflict) as caught:
        await log.append(task_id, fact(task_id, "a"), second.position)
    assert caught.value.duplicate
    assert len(await log.read(task_id)) == 2


async def test_nothing_follows_a_terminal_event(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    last = await log.append(task_id, NewEvent(payload=example("task.failed"), causation_id=first.id), first.position)
    with pytest.raises(TaskEnded, match=task_id):
        await log.append(task_id, fact(task_id, "late"), last.position)


async def test_what_does_not_fit_is_refused_before_it_is_sent(nats: bus.Client, task_id: str) -> None:
    big = msgspec.structs.replace(example("task.received"), context={"x": "y" * 262_144})
    with pytest.raises(TooLarge, match="262144"):
        await Log(nats, "test").append(task_id, NewEvent(payload=big, causation_id=task_id), Position.START)


async def test_a_broken_payload_is_refused_before_it_is_sent(nats: bus.Client, task_id: str) -> None:
    broken = msgspec.structs.replace(example("task.received"), goal="")
    with pytest.raises(schema.SchemaViolation):
        await Log(nats, "test").append(task_id, NewEvent(payload=broken, causation_id=task_id), Position.START)


async def test_a_lost_ack_leaves_one_event(lossy: tuple[LossyProxy, str], nats: bus.Client, task_id: str) -> None:
    proxy, url = lossy
    client = await bus.connect(NatsSettings(url=url), "test")
    first = await Log(nats, "test").append(task_id, received(task_id), Position.START)
    proxy.lose = lambda data: proxy.dropped == 0 and b'"stream":"EVENTS"' in data
    with pytest.raises(Conflict):
        # The repeat finds what the first try has stored.
        await Log(client, "test").append(task_id, fact(task_id, "a"), first.position)
    assert proxy.dropped == 1
    after = await Log(nats, "test").read(task_id, after=first.position)
    assert len(after) == 1
    assert after[0].id == fact_id(task_id, "a")
    await client.close()


def fact_id(task_id: str, key: str) -> str:
    from octollm.events.envelope import event_id

    return event_id(task_id, task_id, "task.cancel_requested", key)


async def test_no_answer_at_all_is_said_within_the_deadline(lossy: tuple[LossyProxy, str], task_id: str) -> None:
    proxy, url = lossy
    client = await bus.connect(NatsSettings(url=url), "test")
    proxy.lose = lambda data: b'"stream":"EVENTS"' in data or b'"error"' in data
    with pytest.raises(LogUnavailable, match=task_id):
        await Log(client, "test", deadline_s=0.5).append(task_id, received(task_id), Position.START)
    await client.close()


async def test_a_read_is_repeated_when_its_answer_is_lost(
    lossy: tuple[LossyProxy, str], nats: bus.Client, task_id: str
) -> None:
    proxy, url = lossy
    client = await bus.connect(NatsSettings(url=url), "test")
    first = await Log(nats, "test").append(task_id, received(task_id), Position.START)
    proxy.lose = lambda data: proxy.dropped < 2 and b"Nats-Subject: task.received" in data
    # The first answer says where the task begins, the second what it holds.
    [event] = await Log(client, "test").read(task_id)
    assert event.position == first.position
    assert proxy.dropped == 2
    await client.close()


async def test_after_a_conflict_a_read_waits_for_the_replica(
    nats: bus.Client, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    second = await log.append(task_id, fact(task_id, "a"), first.position)
    answers: list[list[Event]] = [[], [], [second]]

    async def lagging(_: str, after: Position) -> list[Event]:
        assert after == first.position
        return answers.pop(0)

    monkeypatch.setattr(log, "read", lagging)
    assert await log.read_on(task_id, first.position) == [second]


async def test_where_the_id_alone_was_refused_there_is_nothing_to_read_on(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    assert await log.read_on(task_id, first.position) == []


async def test_sixteen_writers_lose_and_double_nothing(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    await log.append(task_id, received(task_id), Position.START)
    todo = iter(range(200))

    async def writer() -> None:
        position = (await log.read(task_id))[-1].position
        for number in todo:
            while True:
                try:
                    position = (await log.append(task_id, fact(task_id, str(number)), position)).position
                    break
                except Conflict:
                    position = (await log.read(task_id, after=position))[-1].position

    await asyncio.gather(*(writer() for _ in range(16)))
    events = await log.read(task_id)
    assert_chain(events, 201)
    assert {event.id for event in events[1:]} == {fact_id(task_id, str(number)) for number in range(200)}


async def test_a_foreign_message_breaks_the_chain(nats: bus.Client, task_id: str) -> None:
    log = Log(nats, "test")
    first = await log.append(task_id, received(task_id), Position.START)
    second = await log.append(task_id, fact(task_id, "a"), first.position)
    forged = dict(second.headers) | {"ce-id": str(uuid.uuid4()), "ce-taskversion": "3"}
    await nats.jetstream().publish(second.subject, second.body, headers=forged)
    with pytest.raises(ChainBroken, match="another hash"):
        await log.read(task_id)


async def test_both_languages_append_to_one_task_in_turn(nats_url: str, task_id: str) -> None:
    async with writer("python", nats_url) as python, writer("rust", nats_url) as rust:
        position = await python.append(task_id, received(task_id), Position.START)
        for number in range(20):
            position = await (python, rust)[number % 2].append(task_id, fact(task_id, str(number)), position)
        events = await python.read(task_id)
        assert await rust.read(task_id) == events
    assert events[-1][1] == position
    assert [place.version for _, place in events] == list(range(1, 22))
    assert [event_id for event_id, _ in events[1:]] == [fact_id(task_id, str(number)) for number in range(20)]
