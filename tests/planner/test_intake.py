"""From a received task to its plan on record, on a real broker: once each, whatever happens in between."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from nats.aio.client import Client
from prometheus_client import REGISTRY

from octollm.events import bus, direct
from octollm.events.carrier import (
    ErrorCode,
    PlanFailed,
    PlanFailureClass,
    PlanReason,
    PlanRequested,
    TaskPlanned,
    TaskReceived,
)
from octollm.events.config import NatsSettings
from octollm.events.consumer import ATTEMPTS
from octollm.events.envelope import Event, NewEvent, Position, event_id
from octollm.events.log import Log
from octollm.events.payload import Payload
from octollm.planner.intake import Intake
from octollm.planner.outcome import Outcome
from octollm.planner.planning import Planning
from tests.events.examples import example
from tests.events.proxy import LossyProxy
from tests.planner.tasks import command, received, step

DEADLINE_S = 20.0
ACK_WAIT_S = 30.0

Meanwhile = Callable[[], Awaitable[None]]


class Interrupted(Planning):
    """Plans as always, but lets something happen first to the tasks that it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: dict[str, Meanwhile] = {}
        self.asked: list[str] = []

    async def plan(self, task_id: str, task: TaskReceived, received_at: datetime) -> Outcome:
        self.asked.append(task_id)
        if task_id in self.meanwhile:
            await self.meanwhile[task_id]()
        return await super().plan(task_id, task, received_at)


@asynccontextmanager
async def running(client: Client, planning: Planning, concurrency: int = 8) -> AsyncIterator[asyncio.Task[None]]:
    """The planner's intake; at the end it is cancelled."""
    task = asyncio.create_task(Intake(client, Log(client, "planner"), planning, concurrency).run(asyncio.Event()))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def submit(client: Client, task: TaskReceived, task_id: str | None = None) -> Event:
    """What reflex does."""
    name = task_id or str(uuid.uuid4())
    return await Log(client, "reflex").append(name, NewEvent(payload=task, causation_id=name), Position.START)


async def append(client: Client, after: Event, payload: Payload) -> Event:
    """What another service does."""
    new = NewEvent(payload=payload, causation_id=after.id, key="1")
    return await Log(client, "orchestrator").append(after.task_id, new, after.position)


async def first(client: Client, task_id: str) -> Event:
    """The task's first event from the log: the planner may be at work before `submit` has returned."""
    return (await Log(client, "test").read(task_id))[0]


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for a condition; fails at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE_S:g} s in vain: {what}")


async def history(client: Client, task: Event, length: int) -> list[Event]:
    """The task's events as soon as there are `length` of them."""
    log = Log(client, "test")
    events: list[Event] = []

    async def long_enough() -> bool:
        events[:] = await log.read(task.task_id)
        return len(events) >= length

    await until(long_enough, f"task {task.task_id} has {length} events")
    return events


async def taken(client: Client) -> None:
    """Waits until the consumer has nothing in hand and nothing waiting."""

    async def idle() -> bool:
        info = await client.jetstream().consumer_info("EVENTS", "planner")
        return not info.num_ack_pending and not info.num_pending

    await until(idle, "everything is answered for")


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"octollm_planner_{name}", labels) or 0.0


async def test_a_goal_becomes_a_plan_on_record(nats: Client) -> None:
    before = sample("plans_total", provider="offline", outcome="planned")
    async with running(nats, Planning()):
        task = await submit(nats, received("Echo hello world"))
        _, stored = await history(nats, task, 2)
        await taken(nats)
    plan = stored.payload
    assert isinstance(plan, TaskPlanned)
    assert [one.id for one in plan.steps] == ["echo", "verify"]
    assert stored.causation_id == task.id
    assert stored.id == event_id(task.task_id, task.id, "task.planned", "1")
    assert stored.source == "/octollm/planner"
    assert sample("plans_total", provider="offline", outcome="planned") > before


async def test_the_callers_plan_is_taken(nats: Client) -> None:
    async with running(nats, Planning()):
        task = await submit(nats, received("anything at all", plan={"steps": [step("a"), step("b", "a")]}))
        _, stored = await history(nats, task, 2)
    assert isinstance(stored.payload, TaskPlanned)
    assert (stored.payload.provider, [one.id for one in stored.payload.steps]) == ("caller", ["a", "b"])


async def test_a_goal_without_a_recipe_fails_with_advice(nats: Client) -> None:
    async with running(nats, Planning()):
        task = await submit(nats, received("Deploy the application"))
        _, stored = await history(nats, task, 2)
    failed = stored.payload
    assert isinstance(failed, PlanFailed)
    assert (failed.code, failed.class_) == (ErrorCode.PLANNING_FAILED, PlanFailureClass.unsupported)
    assert stored.kind == "plan.failed"
    assert stored.id == event_id(task.task_id, task.id, "plan.failed", "1")


async def test_the_callers_broken_plan_fails_with_its_place(nats: Client) -> None:
    async with running(nats, Planning()):
        task = await submit(nats, received(plan={"steps": [step("a", "b"), step("b", "a")]}))
        _, stored = await history(nats, task, 2)
    assert isinstance(stored.payload, PlanFailed)
    assert stored.payload.code is ErrorCode.INVALID_REQUEST
    assert "a → b → a" in stored.payload.message


async def test_the_trace_goes_on(nats: Client, task_id: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    new = NewEvent(payload=received(), causation_id=task_id, traceparent=trace)
    async with running(nats, Planning()):
        task = await Log(nats, "reflex").append(task_id, new, Position.START)
        events = await history(nats, task, 2)
    assert [event.traceparent for event in events] == [trace, trace]


@pytest.mark.parametrize("kind", ["task.cancel_requested", "task.cancelled", "task.failed", "task.planned"])
async def test_a_task_that_no_longer_waits_gets_no_plan(nats: Client, kind: str, task_id: str) -> None:
    planning, late, conflicts = Interrupted(), sample("late_total"), sample("conflicts_total")

    async def moved_on() -> None:
        await append(nats, await first(nats, task_id), example(kind))

    planning.meanwhile[task_id] = moved_on
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)
        await taken(nats)
    assert [event.kind for event in await history(nats, task, 2)] == ["task.received", kind]
    assert sample("late_total") == late + 1
    assert sample("conflicts_total") == conflicts + 1


async def test_a_task_that_moved_on_but_still_waits_gets_its_plan(nats: Client, task_id: str) -> None:
    planning = Interrupted()

    async def moved_on() -> None:
        await append(nats, await first(nats, task_id), example("step.failed"))

    planning.meanwhile[task_id] = moved_on
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)
        events = await history(nats, task, 3)
    assert [event.kind for event in events] == ["task.received", "step.failed", "task.planned"]
    assert events[2].causation_id == task.id


async def test_a_redelivered_task_that_is_planned_is_left_alone(nats: Client, task_id: str) -> None:
    planning, settled = Interrupted(), sample("already_settled_total")

    async def crash_after_the_append() -> None:
        await append(nats, await first(nats, task_id), example("task.planned"))
        raise RuntimeError("the answer to the broker is lost")

    planning.meanwhile[task_id] = crash_after_the_append
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)

        async def left_alone() -> bool:
            return sample("already_settled_total") == settled + 1

        await until(left_alone, "the redelivery was seen to need nothing")
        await taken(nats)
    assert planning.asked.count(task_id) == 1
    assert len(await history(nats, task, 2)) == 2


async def test_a_failure_is_tried_again_and_stops_no_other_task(nats: Client, task_id: str) -> None:
    planning = Interrupted()
    failures, redelivered = sample("handler_failures_total", error="RuntimeError"), sample("redeliveries_total")
    attempts = 0

    async def fails_twice() -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise RuntimeError("not now")

    planning.meanwhile[task_id] = fails_twice
    async with running(nats, planning) as serving:
        unlucky = await submit(nats, received(), task_id)
        others = [await submit(nats, received()) for _ in range(5)]
        for task in [*others, unlucky]:
            assert [event.kind for event in await history(nats, task, 2)] == ["task.received", "task.planned"]
        assert not serving.done()
    assert attempts == 3
    assert sample("handler_failures_total", error="RuntimeError") == failures + 2
    assert sample("redeliveries_total") >= redelivered + 2


async def test_several_are_planned_at_once_and_no_more_than_allowed(nats: Client) -> None:
    planning, at_once, most = Interrupted(), 0, 0
    full = asyncio.Event()

    async def waits_for_company() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            full.set()
        await asyncio.wait_for(full.wait(), DEADLINE_S)
        at_once -= 1

    ids = [str(uuid.uuid4()) for _ in range(6)]
    planning.meanwhile = dict.fromkeys(ids, waits_for_company)
    async with running(nats, planning, concurrency=3):
        tasks = [await submit(nats, received(), name) for name in ids]
        for task in tasks:
            await history(nats, task, 2)
    assert most == 3


async def test_what_is_not_done_at_the_end_is_handed_back_at_once(nats: Client, task_id: str) -> None:
    planning, begun = Interrupted(), asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    planning.meanwhile[task_id] = for_ever
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
    started = asyncio.get_running_loop().time()
    async with running(nats, Planning()):
        assert (await history(nats, task, 2))[1].kind == "task.planned"
    assert asyncio.get_running_loop().time() - started < ACK_WAIT_S / 2


async def test_an_orderly_end_finishes_what_was_taken(nats: Client, task_id: str) -> None:
    planning, begun, finish, stopping = Interrupted(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def until_told() -> None:
        begun.set()
        await finish.wait()

    async def nobody_asks() -> bool:
        return not (await nats.jetstream().consumer_info("EVENTS", "planner")).num_waiting

    planning.meanwhile[task_id] = until_told
    serving = asyncio.create_task(Intake(nats, Log(nats, "planner"), planning, 8).run(stopping))
    task = await submit(nats, received(), task_id)
    await asyncio.wait_for(begun.wait(), DEADLINE_S)
    stopping.set()
    await until(nobody_asks, "nothing more is taken")
    done, _ = await asyncio.wait({serving}, timeout=0.2)
    assert not done, "what was taken is waited for"
    finish.set()
    await asyncio.wait_for(serving, DEADLINE_S)
    assert len(await Log(nats, "test").read(task.task_id)) == 2


async def test_a_plan_that_does_not_fit_fails_with_its_size(nats: Client) -> None:
    class Huge(Planning):
        async def plan(self, task_id: str, task: TaskReceived, received_at: datetime) -> Outcome:
            text = "x" * 65_536
            write: dict[str, Any] = {"kind": "file", "op": "write", "path": "a", "text": text}
            steps = [step(f"s{n}", action=write) for n in range(5)]
            return await super().plan(task_id, received(plan={"steps": steps}), received_at)

    async with running(nats, Huge()):
        task = await submit(nats, received())
        _, stored = await history(nats, task, 2)
    assert isinstance(stored.payload, PlanFailed)
    assert stored.payload.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_what_can_never_be_read_is_given_up(nats: Client, task_id: str) -> None:
    failures = sample("handler_failures_total", error="Undecodable")
    async with running(nats, Planning()):
        await nats.jetstream().publish(f"task.received.{task_id}", b"{}", headers={"ce-type": "nonsense"})

        async def counted() -> bool:
            return sample("handler_failures_total", error="Undecodable") == failures + 1

        await until(counted, "the failure is counted")
        await taken(nats)


async def test_a_lost_answer_to_the_append_is_no_second_plan(nats: Client, nats_url: str, task_id: str) -> None:
    proxy = LossyProxy(nats_url)
    client = await bus.connect(NatsSettings(url=await proxy.start()), "planner")
    late, planned = sample("late_total"), sample("plans_total", provider="offline", outcome="planned")
    planning = Interrupted()

    async def lose_the_next_ack() -> None:
        lost = False

        def lose(data: bytes) -> bool:
            nonlocal lost
            first = not lost and b'"stream":"EVENTS"' in data
            lost = lost or first
            return first

        proxy.lose = lose

    planning.meanwhile[task_id] = lose_the_next_ack
    try:
        async with running(client, planning):
            task = await submit(nats, received(), task_id)

            async def counted() -> bool:
                return sample("plans_total", provider="offline", outcome="planned") == planned + 1

            await until(counted, "the plan counts as stored")
        assert len(await history(nats, task, 2)) == 2
        assert proxy.dropped == 1
        assert sample("late_total") == late
    finally:
        await client.close()
        await proxy.stop()


async def test_two_planners_make_one_plan(nats: Client, nats_url: str) -> None:
    other = await bus.connect(NatsSettings(url=nats_url), "planner")
    goal = received(plan={"steps": [step("a", action=command("echo", "x"))]})
    async with running(nats, Planning()), running(other, Planning()):
        tasks = [await submit(nats, goal) for _ in range(20)]
        for task in tasks:
            assert [event.kind for event in await history(nats, task, 2)] == ["task.received", "task.planned"]
        await taken(nats)
    for task in tasks:
        assert len(await history(nats, task, 2)) == 2
    await other.close()


async def ask_again(client: Client, task: Event) -> Event:
    """What the orchestrator does when a person has a task resumed that waits for its plan."""
    request = PlanRequested(plan_version=1, attempt=2, reason=PlanReason.resumed, requested_by="operator")
    return await append(client, task, request)


async def test_a_task_whose_first_request_was_given_up_is_planned_when_it_is_asked_for_again(
    nats: Client, task_id: str
) -> None:
    planning, healed = Interrupted(), False

    async def defective() -> None:
        if not healed:
            raise RuntimeError("a defect")

    planning.meanwhile[task_id] = defective
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)

        async def given_up() -> bool:
            messages, _ = await direct.batch(nats, "ADVISORY", ">", 1, 100, 5)
            return any(f"task.received.{task_id} RuntimeError".encode() in message.data for message in messages)

        await until(given_up, "its delivery is given up")
        healed = True
        request = await ask_again(nats, task)
        events = await history(nats, task, 3)
        await taken(nats)
    assert [event.kind for event in events] == ["task.received", "plan.requested", "task.planned"]
    assert events[2].causation_id == request.id
    assert planning.asked.count(task_id) == ATTEMPTS + 1


async def test_a_request_for_a_task_that_is_being_planned_makes_no_second_plan(nats: Client, task_id: str) -> None:
    planning = Interrupted()

    async def asked_again() -> None:
        planning.meanwhile.pop(task_id)
        await ask_again(nats, await first(nats, task_id))

    planning.meanwhile[task_id] = asked_again
    async with running(nats, planning):
        task = await submit(nats, received(), task_id)
        await history(nats, task, 3)
        await taken(nats)
    events = await history(nats, task, 3)
    assert [event.kind for event in events] == ["task.received", "plan.requested", "task.planned"]
    assert events[2].causation_id == task.id
