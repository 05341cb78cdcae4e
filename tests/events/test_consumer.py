"""Deliveries on a real broker: an outage costs nothing, a failure is counted, the fifth gives a message up."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events import bus, direct, gate
from octollm.events.config import NatsSettings
from octollm.events.consumer import ATTEMPTS, Consumer, Delivery, Failures, NotNow, Settled, Unreadable, outage, told
from octollm.events.envelope import Undecodable
from octollm.events.gate import Unavailable
from octollm.events.log import ChainBroken, Forbidden, LogFull, LogUnavailable
from octollm.stack import Stack, StackOptions

DEADLINE_S = 30.0

Work = Callable[[Delivery], Awaitable[None]]


@asynccontextmanager
async def consuming(client: Client, work: Work) -> AsyncIterator[tuple[Consumer, list[tuple[str, Settled]]]]:
    """The consumer `planner`, with this handler, and what became of its deliveries: (task id, how)."""
    consumer = Consumer(client, "EVENTS", "planner")
    settled: list[tuple[str, Settled]] = []
    handling: set[asyncio.Task[None]] = set()

    async def handle(delivery: Delivery) -> None:
        settlement = await delivery.settle(work)
        settled.append((delivery.subject.rpartition(".")[2], settlement.outcome))

    async def take() -> None:
        async for delivery in consumer:
            handling.add(task := asyncio.create_task(handle(delivery)))
            task.add_done_callback(handling.discard)

    taking = asyncio.create_task(take())
    yield consumer, settled
    await consumer.close()
    await taking
    await asyncio.gather(*handling, return_exceptions=True)


async def publish(client: Client, count: int = 1) -> list[str]:
    """That many messages that the planner is asked by; their tasks."""
    tasks = [str(uuid.uuid4()) for _ in range(count)]
    for task_id in tasks:
        await client.jetstream().publish(f"task.received.{task_id}", b"{}")
    return tasks


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE_S:g} s in vain: {what}")


async def advisories(client: Client, tasks: list[str], least: int = 1) -> dict[str, dict[str, Any]]:
    """What the broker says was given up, by task; it may take a moment to say so."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while True:
        messages, _ = await direct.batch(client, "ADVISORY", ">", 1, 1000, 5)
        found = [json.loads(message.data) for message in messages]
        said = {advisory["reason"].split()[0].rpartition(".")[2]: advisory for advisory in found}
        by_task = {task_id: said[task_id] for task_id in tasks if task_id in said}
        if len(by_task) >= least or asyncio.get_running_loop().time() > deadline:
            return by_task


async def until_nothing_is_in_hand(client: Client) -> None:
    """Answers are not acknowledged: the broker takes them in its own time."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            info = await client.jetstream().consumer_info("EVENTS", "planner")
            if not info.num_ack_pending and not info.num_pending:
                return


async def test_five_failures_give_a_message_up_and_stop_no_other(nats: Client) -> None:
    [unlucky, *others] = tasks = await publish(nats, 21)

    async def work(delivery: Delivery) -> None:
        if delivery.subject.endswith(unlucky):
            raise KeyError("ada@example.org")

    async with consuming(nats, work) as (_, settled):
        await until(lambda: (unlucky, Settled.GIVEN_UP) in settled, "it is given up")
        await until(lambda: len(settled) == 20 + ATTEMPTS, "the others are done")
        await until_nothing_is_in_hand(nats)
    outcomes = Counter(settled)
    assert outcomes == {(task_id, Settled.DONE): 1 for task_id in others} | {
        (unlucky, Settled.FAILED): ATTEMPTS - 1,
        (unlucky, Settled.GIVEN_UP): 1,
    }
    advisory = (await advisories(nats, tasks)).pop(unlucky)
    assert (advisory["stream"], advisory["consumer"], advisory["deliveries"]) == ("EVENTS", "planner", ATTEMPTS)
    # A defect may quote what it worked on: the class and the place are told, never the text.
    assert advisory["reason"].startswith(f"task.received.{unlucky} KeyError in work (test_consumer.py:")
    assert "ada" not in json.dumps(advisory)


@pytest.mark.parametrize("error", [Unreadable("not in a hundred years"), Undecodable("no envelope")])
async def test_what_can_never_be_read_is_given_up_at_once(nats: Client, error: Exception) -> None:
    tasks = await publish(nats)

    async def work(_: Delivery) -> None:
        raise error

    async with consuming(nats, work) as (_, settled):
        await until(lambda: settled == [(tasks[0], Settled.GIVEN_UP)], "it is given up")
    [advisory] = (await advisories(nats, tasks)).values()
    assert advisory["reason"] == f"task.received.{tasks[0]} {type(error).__name__}: {error}"


async def test_an_outage_stops_the_fetching_costs_no_attempt_and_ends_by_itself(nats: Client) -> None:
    tasks, back, tried = await publish(nats, 100), asyncio.Event(), 0

    async def work(_: Delivery) -> None:
        nonlocal tried
        tried += 1
        if not back.is_set():
            raise LogUnavailable("no answer")

    async with consuming(nats, work) as (consumer, settled):
        await until(lambda: tried > 0, "the first are tried")
        with pytest.raises(Unavailable, match="log: no answer"):
            await consumer.gate.check()
        at_once = tried
        # What was in hand comes back now and then; each time one is tried.
        await until(lambda: tried >= at_once + 2, "it is tried again")
        assert tried < at_once + 10
        back.set()
        await until(lambda: sum(how is Settled.DONE for _, how in settled) == 100, "all are done")
        await consumer.gate.check()
        await until_nothing_is_in_hand(nats)
    assert {how for _, how in settled} == {Settled.UNAVAILABLE, Settled.DONE}
    assert await advisories(nats, tasks, least=0) == {}


async def test_redeliveries_during_an_outage_leave_all_attempts(nats: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_PAUSE_S", (0.05, 0.05))
    [task_id] = await publish(nats)
    troubles = iter([Unavailable("store", "gone")] * 6 + [NotNow("it is in hand already", 0)] * 2)

    async def work(_: Delivery) -> None:
        raise next(troubles, RuntimeError())

    async with consuming(nats, work) as (_, settled):
        await until(lambda: (task_id, Settled.GIVEN_UP) in settled, "it is given up")
    outcomes = Counter(how for _, how in settled)
    assert outcomes == {Settled.UNAVAILABLE: 6, Settled.NOT_NOW: 2, Settled.FAILED: ATTEMPTS - 1, Settled.GIVEN_UP: 1}
    assert (await advisories(nats, [task_id]))[task_id]["deliveries"] == len(settled)


async def test_long_work_keeps_its_delivery(nats: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    [task_id] = await publish(nats)
    beats = 0
    answer = Delivery._answer

    async def counted(delivery: Delivery, word: bytes) -> None:
        nonlocal beats
        beats += word == b"+WPI"
        await answer(delivery, word)

    monkeypatch.setattr(Delivery, "_answer", counted)

    async def work(_: Delivery) -> None:
        await until(lambda: beats >= 3, "three signs of life")

    async with consuming(nats, work) as (consumer, settled):
        consumer.ack_wait_s = 0.03
        await until(lambda: settled == [(task_id, Settled.DONE)], "it is done, once")


async def test_a_crash_of_the_broker_costs_no_attempt_and_forgets_none() -> None:
    options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url), "planner")
        [task_id] = await publish(client)
        failures = 0

        async def work(_: Delivery) -> None:
            nonlocal failures
            failures += 1
            if failures == 2:
                await stack.kill("nats")
                await stack.ready("nats")
                await until(lambda: client.is_connected, "the connection is back")
            raise RuntimeError

        async with consuming(client, work) as (_, settled):
            await until(lambda: (task_id, Settled.GIVEN_UP) in settled, "it is given up")
        assert failures == ATTEMPTS
        await client.close()


def test_counts_are_bounded() -> None:
    failures = Failures(kept=2)
    assert [failures.count(1), failures.count(1), failures.count(2), failures.count(3)] == [1, 2, 1, 1]
    assert failures.count(1) == 1, "the oldest was forgotten"
    failures.forget(3)
    assert failures.count(3) == 1


def test_only_texts_that_hold_no_payload_are_told() -> None:
    assert told(Unreadable("no command")) == "Unreadable: no command"
    assert told(ValueError("ada@example.org")) == "ValueError"


def test_what_no_task_is_to_blame_for_is_an_outage() -> None:
    for error in (LogUnavailable("no answer"), LogFull("8 GiB"), Forbidden("task.planned"), nats_errors.TimeoutError()):
        assert isinstance(outage(error), Unavailable)
    store = Unavailable("store", "gone")
    assert outage(store) is store
    assert outage(ChainBroken("task 1")) is None
    assert outage(TimeoutError()) is None
