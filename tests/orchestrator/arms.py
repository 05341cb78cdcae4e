"""A planner and an executor that do what a test says, and an orchestrator that can be killed: all on a real bus."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec
from nats.aio.client import Client

from octollm.events import bus
from octollm.events.capability import SigningKey
from octollm.events.carrier import ErrorCode, StepDispatched, StepExecuted, StepFailed, TaskCancel
from octollm.events.config import NatsSettings
from octollm.events.consumer import Consumer, Delivery
from octollm.events.envelope import TERMINAL, Event, NewEvent, Position
from octollm.events.log import Conflict, Log
from octollm.events.payload import Payload
from octollm.orchestrator.intake import Intake
from octollm.orchestrator.recovery import Recovery
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.timers import Timers
from tests.orchestrator.history import PRIVATE_KEY, executed, failed, received

DEADLINE_S = 30.0

Act = Callable[[str], Awaitable[Payload | None]]
"""What the executor reports of a step of this id; None for an arm that stays silent."""


async def echo(step_id: str) -> Payload | None:
    """The step succeeds and prints its own id."""
    return executed(step_id, f"{step_id}\n")


@dataclass
class Script:
    """What happens to one task: the planner's answer (None: none) and how its steps go, attempt by attempt."""

    plan: Payload | None
    act: Act = echo
    steps_seen: list[str] = field(default_factory=list)
    attempts: set[tuple[str, int]] = field(default_factory=set)


class Arms:
    """Planner and executor as plain consumers; tasks that no script names are none of theirs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._logs = {name: Log(client, name) for name in ("planner", "executor", "reflex")}
        self._scripts: dict[str, Script] = {}
        self._running: dict[str, set[asyncio.Task[None]]] = {}
        self._consumers = [Consumer(client, "EVENTS", "planner"), Consumer(client, "EVENTS", "executor")]
        self._loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for consumer, handle in zip(self._consumers, (self._plan, self._run), strict=True):
            self._loops.append(asyncio.create_task(self._take(consumer, handle)))
        await self._client.subscribe("log.task.cancel_requested.*", cb=self._kill)
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._loops, *(task for tasks in self._running.values() for task in tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, task_id: str, script: Script, *, seconds: int = 300, retries: int = 0) -> Event:
        """What reflex would do."""
        self._scripts[task_id] = script
        new = NewEvent(payload=received(seconds=seconds, retries=retries), causation_id=task_id)
        return await self._logs["reflex"].append(task_id, new, Position.START)

    async def cancel(self, task_id: str, reason: str = "wrong folder") -> None:
        """Stores the command."""
        command = TaskCancel(task_id=task_id, requested_by="operator", reason=reason)
        await self._client.jetstream().publish("task.cancel", msgspec.json.encode(command))

    async def _take(self, consumer: Consumer, handle: Callable[[Event, Script], Awaitable[None]]) -> None:
        async for delivery in consumer:
            event = delivery.event
            script = self._scripts.get(event.task_id)
            if script is None:
                await delivery.ack()
                continue
            task = asyncio.create_task(self._answer(delivery, handle(event, script)))
            self._running.setdefault(event.task_id, set()).add(task)

    async def _answer(self, delivery: Delivery, work: Awaitable[None]) -> None:
        await work
        await delivery.ack()

    async def _plan(self, event: Event, script: Script) -> None:
        if script.plan is not None:
            await self._append("planner", event, script.plan, "")

    async def _run(self, event: Event, script: Script) -> None:
        dispatched = event.payload
        assert isinstance(dispatched, StepDispatched)
        name, attempt = dispatched.step.id, dispatched.attempt
        if (name, attempt) in script.attempts:
            return
        script.attempts.add((name, attempt))
        script.steps_seen.append(name)
        try:
            report = await script.act(name)
        except asyncio.CancelledError:
            report = failed(name, ErrorCode.CANCELLED, "killed on request")
        if isinstance(report, StepExecuted | StepFailed):
            report = msgspec.structs.replace(report, attempt=attempt)
            await self._append("executor", event, report, f"1/{name}/{attempt}")

    async def _kill(self, message: object) -> None:
        task_id = str(getattr(message, "subject", "")).rsplit(".", 1)[1]
        for task in self._running.get(task_id, ()):
            task.cancel()

    async def _append(self, source: str, answered: Event, payload: Payload, key: str) -> None:
        position = answered.position
        while not position.terminal:
            try:
                new = NewEvent(payload=payload, causation_id=answered.id, key=key)
                await self._logs[source].append(answered.task_id, new, position)
                return
            except Conflict:
                position = (await self._logs[source].read(answered.task_id, after=position))[-1].position


class Crash(BaseException):
    """The process is gone: nothing is caught, nothing is acknowledged."""


Failpoints = Mapping[str, BaseException]
"""By name (`before step.dispatched b`, `after task.completed`): what happens there, once."""


class FailingLog(Log):
    """A log with named points at which an append fails, before it is stored or after."""

    def __init__(self, client: Client, failpoints: Failpoints, source: str = "orchestrator") -> None:
        super().__init__(client, source)
        self.left = dict(failpoints)
        self._crashed: Crash | None = None

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Event:
        if self._crashed:
            raise self._crashed
        name = new.kind
        if isinstance(new.payload, StepDispatched):
            name += f" {new.payload.step.id}"
        self._fail(f"before {name}")
        event = await super().append(task_id, new, expected)
        self._fail(f"after {name}")
        return event

    def _fail(self, point: str) -> None:
        if error := self.left.pop(point, None):
            # What else goes on in this process would have died with it.
            self._crashed = error if isinstance(error, Crash) else None
            raise error


@contextlib.asynccontextmanager
async def orchestrator(
    nats_url: str,
    *,
    grace: float = 15.0,
    cache_size: int = 100,
    log: Callable[[Client], Log] = lambda client: Log(client, "orchestrator"),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Runner]:
    """A whole orchestrator on a connection of its own; leaving the block stops it as SIGTERM does."""
    client = await bus.connect(NatsSettings(url=nats_url), "orchestrator")
    runner = Runner(
        log(client),
        Timers(client),
        grace=timedelta(seconds=grace),
        cache_size=cache_size,
        sign=SigningKey(PRIVATE_KEY).sign,
        clock=clock,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(Intake(client, runner, Recovery(client, runner)).run(stopping))
    try:
        yield runner
    finally:
        stopping.set()
        await asyncio.wait_for(running, DEADLINE_S)
        await client.close()


async def until_ended(log: Log, task_id: str) -> list[Event]:
    """The task's events once the last is terminal."""
    events: list[Event] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while not events or events[-1].kind not in TERMINAL:
                await asyncio.sleep(0.01)
                events = await log.read(task_id)
    assert events, f"task {task_id} has no events"
    assert events[-1].terminal, f"task {task_id} did not end: {[event.kind for event in events]}"
    return events


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Returns when the condition holds; fails after the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while loop.time() < deadline:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")
