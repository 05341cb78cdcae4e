"""Appends while acks are lost, writers race and servers die: on one node and on three, from both languages.

What the broker answers is written down in events/README.md (Append); where it differs, these tests fail.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from octollm.events.carrier import TaskCancelRequested
from octollm.events.envelope import NewEvent, Position, event_id
from octollm.events.log import Conflict, LogUnavailable
from tests.cluster.broker import DEADLINE_S, Broker
from tests.events.examples import example
from tests.events.proxy import LossyProxy
from tests.events.writers import Language, Writer, writer

pytestmark = pytest.mark.asyncio(loop_scope="session")

LANGUAGES: tuple[Language, ...] = ("python", "rust")
WRITERS = 16
EACH = 5
"""Facts of each writer on a task of its own, and on the one that all share."""

# What the broker answers by situation, on one node and on three.
ANSWERS = {
    "the same id, the same expectation": ("10071", "duplicate"),
    "the same id, a newer expectation": ("duplicate", "duplicate"),
    "another id, an old expectation": ("10071", "10071"),
}
# And to appends at once: what is sure to be seen, and what may be.
ANSWERS_AT_ONCE: dict[str, tuple[tuple[set[str], set[str]], ...]] = {
    "the same id": (({"10071"}, set()), ({"10158", "duplicate"}, set())),
    "other ids": (({"10071"}, set()), ({"10164"}, {"10071"})),
}


def received(task_id: str) -> NewEvent:
    return NewEvent(payload=example("task.received"), causation_id=task_id)


def fact(task_id: str, key: str) -> NewEvent:
    return NewEvent(payload=TaskCancelRequested(requested_by="operator"), causation_id=task_id, key=key)


def fact_id(task_id: str, key: str) -> str:
    return event_id(task_id, task_id, "task.cancel_requested", key)


def said(ack: dict[str, Any]) -> str:
    """What an answer of the broker means."""
    if error := ack.get("error"):
        return str(error["err_code"])
    return "duplicate" if ack.get("duplicate") else "stored"


@contextlib.asynccontextmanager
async def behind_proxy(language: Language, url: str) -> AsyncIterator[tuple[Writer, LossyProxy]]:
    """A writer whose acks can be lost, and are written down."""
    proxy = LossyProxy(url)
    try:
        async with writer(language, await proxy.start()) as found:
            yield found, proxy
    finally:
        await proxy.stop()


async def moved_on(log: Writer, task_id: str, after: Position) -> list[tuple[str, Position]]:
    """What there is after a position at which an append conflicted; a replica may show it a little later."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(LogUnavailable):
                if events := await log.read(task_id, after):
                    return events
            await asyncio.sleep(0.01)


async def put(log: Writer, task_id: str, key: str, position: Position) -> tuple[Position, bool]:
    """Has the fact in the log, whatever it takes; where the task then stands, and whether this append stored it."""
    while True:
        try:
            return await log.append(task_id, fact(task_id, key), position), True
        except LogUnavailable:
            continue  # the outcome is unknown, and the same append may be repeated
        except Conflict:
            events = await moved_on(log, task_id, position)
            position = events[-1][1]
            if fact_id(task_id, key) in [stored for stored, _ in events]:
                return position, False


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_the_broker_answers_is_understood(broker: Broker, language: Language, task_id: str) -> None:
    async with behind_proxy(language, broker.url(await broker.follower())) as (log, proxy):
        first = await log.append(task_id, received(task_id), Position.START)
        a = await log.append(task_id, fact(task_id, "a"), first)

        async def refused(key: str, expected: Position, situation: str) -> dict[str, Any]:
            with pytest.raises(Conflict) as caught:
                await log.append(task_id, fact(task_id, key), expected)
            answer = ANSWERS[situation][broker.size > 1]
            assert said(proxy.acks[-1]) == answer, situation
            assert caught.value.duplicate == (answer == "duplicate")
            return proxy.acks[-1]

        await refused("a", first, "the same id, the same expectation")
        ack = await refused("a", a, "the same id, a newer expectation")
        assert ack["seq"] == a.seq, "a duplicate is answered by the old sequence, as if it were stored"
        await refused("b", first, "another id, an old expectation")
        # An id that was refused is not taken for known.
        b = await log.append(task_id, fact(task_id, "b"), a)
        assert said(proxy.acks[-1]) == "stored"
        assert [place for _, place in await moved_on(log, task_id, first)] == [a, b]


@pytest.mark.parametrize("situation", ANSWERS_AT_ONCE)
async def test_of_appends_at_once_one_is_stored(broker: Broker, situation: str) -> None:
    sure, possible = ANSWERS_AT_ONCE[situation][broker.size > 1]
    seen: dict[Language, set[str]] = {language: set() for language in LANGUAGES}
    async with AsyncExitStack() as exits:
        logs: dict[Language, tuple[Writer, LossyProxy]] = {}
        for language in LANGUAGES:
            logs[language] = await exits.enter_async_context(behind_proxy(language, broker.urls[0]))
        async with asyncio.timeout(DEADLINE_S):
            while not all(sure <= answers for answers in seen.values()):
                task_id = str(uuid.uuid4())
                first = await logs["python"][0].append(task_id, received(task_id), Position.START)
                for _, proxy in logs.values():
                    proxy.acks.clear()
                keys = {name: ["a" if situation == "the same id" else f"{name}{n}" for n in range(8)] for name in logs}
                appends = [
                    log.append(task_id, fact(task_id, key), first)
                    for name, (log, _) in logs.items()
                    for key in keys[name]
                ]
                outcomes = await asyncio.gather(*appends, return_exceptions=True)
                stored = [outcome for outcome in outcomes if isinstance(outcome, Position)]
                assert len(stored) == 1
                assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome not in stored)
                [(_, position)] = await moved_on(logs["rust"][0], task_id, first)
                assert position == stored[0]
                for language, (_, proxy) in logs.items():
                    seen[language] |= {said(ack) for ack in proxy.acks} - {"stored"}
                    assert seen[language] <= sure | possible


async def test_a_lost_ack_leaves_one_event(broker: Broker) -> None:
    async def lose(language: Language, cuts: bool, task_id: str) -> None:
        async with behind_proxy(language, broker.urls[0]) as (log, proxy):
            first = await log.append(task_id, received(task_id), Position.START)
            proxy.lose_stored(every=1, count=1, cuts=cuts)
            with pytest.raises(Conflict):
                # The repeat finds what the first try has stored.
                await log.append(task_id, fact(task_id, "a"), first)
            assert proxy.dropped == 1
            assert said(proxy.acks[-1]) == ANSWERS["the same id, the same expectation"][broker.size > 1]
            [(stored, position)] = await moved_on(log, task_id, first)
            assert stored == fact_id(task_id, "a")
            # Who reads and decides again goes on as if nothing had happened.
            assert (await put(log, task_id, "b", position))[1]
            assert [event for event, _ in await moved_on(log, task_id, position)] == [fact_id(task_id, "b")]

    cases = {str(uuid.uuid4()): (language, cuts) for language in LANGUAGES for cuts in (False, True)}
    async with asyncio.TaskGroup() as writers:
        for task_id, (language, cuts) in cases.items():
            writers.create_task(lose(language, cuts, task_id))
    await assert_whole(broker, dict.fromkeys(cases, 3))


@pytest.mark.parametrize("faults", ["acks lost", "a server killed"])
async def test_sixteen_writers_lose_and_double_nothing(broker: Broker, faults: str) -> None:
    shared, own = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(WRITERS)]
    acked: dict[str, dict[str, Position]] = {task_id: {} for task_id in (shared, *own)}
    stored, half = asyncio.Event(), WRITERS * EACH

    async with AsyncExitStack() as exits:
        python, python_proxy = await exits.enter_async_context(
            behind_proxy("python", broker.url(await broker.leader()))
        )
        rust, rust_proxy = await exits.enter_async_context(behind_proxy("rust", broker.url(await broker.follower())))
        starts = {task_id: await python.append(task_id, received(task_id), Position.START) for task_id in acked}

        async def write(number: int) -> None:
            log = (python, rust)[number % 2]
            places = {task_id: starts[task_id] for task_id in (shared, own[number])}
            for count in range(EACH):
                for task_id in places:
                    key = f"{number}/{count}"
                    places[task_id], is_own = await put(log, task_id, key, places[task_id])
                    if is_own:
                        acked[task_id][fact_id(task_id, key)] = places[task_id]
                    if sum(map(len, acked.values())) >= half:
                        stored.set()

        if faults == "acks lost":
            python_proxy.lose_stored(every=15, count=2)
            rust_proxy.lose_stored(every=15, count=2, cuts=True)
        async with asyncio.TaskGroup() as writers:
            for number in range(WRITERS):
                writers.create_task(write(number))
            if faults == "a server killed":
                await stored.wait()
                await broker.kill(await broker.leader())
        if faults == "acks lost":
            assert (python_proxy.dropped, rust_proxy.dropped) == (2, 2)
        events = {task_id: dict(await moved_on(rust, task_id, start)) for task_id, start in starts.items()}

    keys = [f"{number}/{count}" for number in range(WRITERS) for count in range(EACH)]
    assert events[shared].keys() == {fact_id(shared, key) for key in keys}
    for number, task_id in enumerate(own):
        assert list(events[task_id]) == [fact_id(task_id, f"{number}/{count}") for count in range(EACH)]
    for task_id, positions in acked.items():
        assert positions.items() <= events[task_id].items(), "what was acked is in the log, in its place"
    await assert_whole(broker, {shared: 1 + WRITERS * EACH} | dict.fromkeys(own, 1 + EACH))


async def test_a_server_dies_between_publish_and_ack(broker: Broker) -> None:
    leader = await broker.leader()
    async with AsyncExitStack() as exits:
        logs = [await exits.enter_async_context(behind_proxy(name, broker.url(leader))) for name in LANGUAGES]
        starts = {}
        for log, proxy in logs:
            task_id = str(uuid.uuid4())
            starts[task_id] = await log.append(task_id, received(task_id), Position.START)
            proxy.lose_stored(every=1, count=1)
        puts = [
            asyncio.create_task(put(log, task_id, "a", start))
            for (log, _), (task_id, start) in zip(logs, starts.items(), strict=True)
        ]
        async with asyncio.timeout(DEADLINE_S):
            while any(proxy.dropped == 0 for _, proxy in logs):
                await asyncio.sleep(0.001)
            await broker.kill(leader)
            assert [is_own for _, is_own in await asyncio.gather(*puts)] == [False, False]
        for (log, _), (task_id, start) in zip(logs, starts.items(), strict=True):
            assert [stored for stored, _ in await moved_on(log, task_id, start)] == [fact_id(task_id, "a")]
    await assert_whole(broker, dict.fromkeys(starts, 2))


async def assert_whole(broker: Broker, counts: dict[str, int]) -> None:
    """Every server has these tasks with so many events, versions without gaps, and an intact chain."""
    for report in await broker.report(counts):
        assert report.intact
        assert {task.task_id: (task.events, task.last.version) for task in report.tasks} == {
            task_id: (count, count) for task_id, count in counts.items()
        }
