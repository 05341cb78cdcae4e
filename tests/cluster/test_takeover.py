"""An orchestrator dies in the middle of a decision with parallel dispatches, and another takes over.

What a dispatch's id says keeps this right: the step, never its place among the dispatches. The same story with ids
made of places loses steps, and is told here to show that it would be noticed.
"""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from octollm.events import bus
from octollm.events.capability import SigningKey
from octollm.events.carrier import StepDispatched
from octollm.events.config import NatsSettings
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import Conflict, Log
from octollm.orchestrator.runner import Runner, Stuck
from octollm.orchestrator.timers import Timers
from tests.cluster.broker import DEADLINE_S, Broker
from tests.orchestrator.arms import Crash, FailingLog, Failpoints
from tests.orchestrator.history import PRIVATE_KEY, executed, planned, received, step

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLANNED = ("a", "b", "c", "d")
PLAN = planned(step("a"), step("b"), step("c"), step("d", "a"))
BETWEEN = ["nothing", "the result of a step", "another orchestrator that dies"]

MakeLog = Callable[[bus.Client, Failpoints], Log]


class PositionalLog(FailingLog):
    """The planted mistake: a dispatch is named by its place among those that this orchestrator made of one decision."""

    def __init__(self, client: bus.Client, failpoints: Failpoints) -> None:
        super().__init__(client, failpoints)
        self._places: Counter[tuple[str, str]] = Counter()

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Event:
        if not isinstance(new.payload, StepDispatched):
            return await super().append(task_id, new, expected)
        decision = (task_id, new.causation_id)
        event = await super().append(task_id, replace(new, key=str(self._places[decision])), expected)
        self._places[decision] += 1
        return event


@pytest_asyncio.fixture(loop_scope="session")
async def client(broker: Broker) -> AsyncIterator[bus.Client]:
    connection = await bus.connect(NatsSettings(url=broker.urls[0]), "orchestrator")
    yield connection
    await connection.close()


def orchestrator(client: bus.Client, log: Log) -> Runner:
    """One without consumers: the test says what it is told, and when."""
    sign = SigningKey(PRIVATE_KEY).sign
    return Runner(log, Timers(client), grace=timedelta(seconds=15), cache_size=100, sign=sign)


async def carry_on(runner: Runner, news: Event, patience_s: float = DEADLINE_S) -> None:
    """Tells it of an event until all that follows is on record, which a lagging replica or a faster other may delay."""
    async with asyncio.timeout(patience_s):
        while True:
            with contextlib.suppress(Stuck):
                await runner.event(news)
                return
            await asyncio.sleep(0.01)


async def shown(log: Log, stored: Event) -> Event:
    """The event as it is read, with the broker's time; a replica may show it a little later."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for event in await log.read(stored.task_id):
                if event.seq == stored.seq:
                    return event
            await asyncio.sleep(0.01)


async def submit_planned(client: bus.Client, task_id: str) -> Event:
    """A task that waits for its dispatches; its plan."""
    log = Log(client, "test")
    first = await log.append(task_id, NewEvent(payload=received(), causation_id=task_id), Position.START)
    return await shown(log, await log.append(task_id, NewEvent(payload=PLAN, causation_id=first.id), first.position))


def dispatched(events: list[Event]) -> dict[str, Event]:
    """Dispatches by step."""
    found = {event.payload.step.id: event for event in events if isinstance(event.payload, StepDispatched)}
    assert len(found) == sum(event.kind == "step.dispatched" for event in events), "a step was dispatched twice"
    return found


async def report(client: bus.Client, task_id: str, name: str) -> Event:
    """What the executor does once the step is dispatched, over whatever is appended in between."""
    log = Log(client, "executor")
    async with asyncio.timeout(DEADLINE_S):
        while True:
            events = await log.read(task_id)
            if cause := dispatched(events).get(name):
                new = NewEvent(payload=executed(name, f"{name}\n"), causation_id=cause.id, key=f"1/{name}/1")
                with contextlib.suppress(Conflict):
                    return await shown(log, await log.append(task_id, new, events[-1].position))
            await asyncio.sleep(0.01)


async def crash(client: bus.Client, make_log: MakeLog, news: Event, point: str) -> None:
    """An orchestrator hears of the event and works until it dies at this point."""
    runner = orchestrator(client, make_log(client, {point: Crash()}))
    with pytest.raises(Crash):
        await carry_on(runner, news)


async def take_over(client: bus.Client, make_log: MakeLog, task_id: str, between: str, patience_s: float) -> None:
    """The orchestrator dies after its first dispatch, something happens or nothing, and another takes over."""
    news = await submit_planned(client, task_id)
    await crash(client, make_log, news, "after step.dispatched a")
    left = list(PLANNED)
    if between == "the result of a step":
        news = await report(client, task_id, left.pop(0))
    if between == "another orchestrator that dies":
        await crash(client, make_log, news, "after step.dispatched b")
    runner = orchestrator(client, make_log(client, {}))
    await carry_on(runner, news, patience_s)
    await finish(client, [runner], task_id, left)


async def finish(client: bus.Client, runners: list[Runner], task_id: str, left: Sequence[str]) -> None:
    """The steps are carried out, and every orchestrator hears of it."""
    for name in left:
        news = await report(client, task_id, name)
        await asyncio.gather(*(carry_on(runner, news) for runner in runners))


async def assert_each_step_once(client: bus.Client, task_id: str) -> None:
    log = Log(client, "test")
    async with asyncio.timeout(DEADLINE_S):
        while not (events := await log.read(task_id))[-1].terminal:
            await asyncio.sleep(0.01)
    assert sorted(dispatched(events)) == list(PLANNED)
    assert Counter(event.kind for event in events) == {
        "task.received": 1,
        "task.planned": 1,
        "step.dispatched": 4,
        "step.executed": 4,
        "task.completed": 1,
    }


@pytest.mark.parametrize("between", BETWEEN)
async def test_every_step_is_dispatched_once(client: bus.Client, task_id: str, between: str) -> None:
    await take_over(client, FailingLog, task_id, between, DEADLINE_S)
    await assert_each_step_once(client, task_id)


@pytest.mark.parametrize("between", BETWEEN[:2])
async def test_ids_made_of_places_lose_steps(client: bus.Client, task_id: str, between: str) -> None:
    with pytest.raises(TimeoutError):
        # The id of the next dispatch is taken: by another step.
        await take_over(client, PositionalLog, task_id, between, patience_s=1)
    assert list(dispatched(await Log(client, "test").read(task_id))) == ["a"]


async def test_ids_made_of_places_do_without_a_crash(client: bus.Client, task_id: str) -> None:
    news = await submit_planned(client, task_id)
    runner = orchestrator(client, PositionalLog(client, {}))
    await carry_on(runner, news)
    await finish(client, [runner], task_id, PLANNED)
    await assert_each_step_once(client, task_id)


async def test_two_orchestrators_at_once_dispatch_every_step_once(broker: Broker, client: bus.Client) -> None:
    other = await bus.connect(NatsSettings(url=broker.urls[-1]), "orchestrator")
    runners = [orchestrator(connection, Log(connection, "orchestrator")) for connection in (client, other)]
    for task_id in [str(uuid.uuid4()) for _ in range(5)]:
        news = await submit_planned(client, task_id)
        await asyncio.gather(*(carry_on(runner, news) for runner in runners))
        await finish(client, runners, task_id, PLANNED)
        await assert_each_step_once(client, task_id)
    await other.close()
