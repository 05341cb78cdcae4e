"""The executor as a model: how it takes, claims, settles and answers (arms/executor, `service/worker.rs`).

One thing is stricter here: before a side-effecting step starts, and after it is claimed, the log is read, however
often the delivery says that it was made. A broker that crashes forgets up to a tenth of a second of deliveries and
acks, and delivers what was settled then as if for the first time.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

import msgspec

from octollm.events.carrier import Effect, ErrorCode, StepDispatched, StepExecuted
from octollm.events.consumer import Consumer, Delivery, NotNow
from octollm.events.envelope import Event, NewEvent, Position, event_id
from octollm.events.log import Conflict, Log, LogError, TaskEnded
from octollm.events.payload import Payload
from octollm.events.schema import encode
from tests.chaos.simulation.broker import EPOCH, Broker, Message
from tests.orchestrator.history import executed, failed

Attempt = tuple[str, str, int]
"""Task, step, number."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a step does when it runs: how long (seconds), and what comes of its first `attempts`; the others succeed.

    code: how they fail; without a sandbox they have no effect. is_silent: nothing is ever reported of them.
    """

    seconds: float = 0.01
    code: ErrorCode | None = None
    is_silent: bool = False
    attempts: int = 100

    def of(self, attempt: int) -> "Behaviour":
        """How this attempt goes."""
        return self if attempt <= self.attempts else Behaviour(self.seconds)


@dataclass
class Host:
    """What outlives an executor: claims on disk, the effects that steps had on the world, and what steps are like."""

    behaviours: dict[tuple[str, str], Behaviour] = field(default_factory=dict)
    claims: set[Attempt] = field(default_factory=set)
    effects: dict[Attempt, int] = field(default_factory=dict)


class Again(Exception):
    """The delivery is handed back."""


class Silent(Exception):
    """The arm forgets its step: nothing is reported, nothing released."""


class ExecutorModel:
    """One executor process."""

    def __init__(self, client: Any, broker: Broker, host: Host, rng: Random, ack_wait: float) -> None:
        self.client = client
        self.host = host
        self.rng = rng
        self.log = Log(self.client, "executor")
        self._broker = broker
        self._consumer = Consumer(self.client, "EVENTS", "executor")
        self._consumer.ack_wait_s = ack_wait
        self._running: dict[Attempt, asyncio.Event] = {}
        self._cancelled: set[str] = set()

    async def run(self) -> None:
        for fact in ("task.cancel_requested", "step.failed", "task.failed"):
            await self.client.subscribe(f"log.{fact}.*", cb=self._observe)
        async for delivery in self._consumer:
            asyncio.create_task(delivery.settle(self._handle))  # noqa: RUF006  # the process keeps it

    async def _observe(self, message: Message) -> None:
        event = Event.parse(message.subject[4:], message.headers or {}, message.data, 0, EPOCH)
        if event.kind != "step.failed":
            self._cancelled.add(event.task_id)
        for attempt, cancel in self._running.items():
            if attempt[0] == event.task_id and (event.kind != "step.failed" or _about(event) == attempt):
                cancel.set()

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except (LogError, Again) as error:
            raise NotNow(type(error).__name__, 2) from error
        except Silent:
            return

    async def _attempt(self, delivery: Delivery) -> None:
        dispatch = delivery.event
        dispatched = dispatch.payload
        assert isinstance(dispatched, StepDispatched)
        attempt = (dispatch.task_id, dispatched.step.id, dispatched.attempt)
        if attempt in self._running:
            raise Again
        cancel = self._running[attempt] = asyncio.Event()
        if dispatch.task_id in self._cancelled:
            cancel.set()
        try:
            standing = await self._report(delivery, dispatch, dispatched, attempt, cancel)
            if standing is not None:
                await self.settle(dispatch, attempt, *standing)
            self.host.claims.discard(attempt)
        finally:
            del self._running[attempt]

    async def _report(
        self, delivery: Delivery, dispatch: Event, dispatched: StepDispatched, attempt: Attempt, cancel: asyncio.Event
    ) -> tuple[Payload, Position] | None:
        """What goes on record, and after which event; none for an attempt that is settled."""
        name, expected = dispatched.step.id, dispatch.position
        is_overdue = datetime.fromisoformat(dispatched.deadline) <= self._broker.now
        if delivery.redelivered or is_overdue:
            since = await self.log.read(dispatch.task_id, after=expected)
            if _is_closed(since, attempt):
                return None
            if any(event.kind == "task.cancel_requested" for event in since):
                cancel.set()
            expected = since[-1].position if since else expected
        if cancel.is_set():
            return failed(name, ErrorCode.CANCELLED, "cancelled before it started", attempt[2]), expected
        if is_overdue:
            return failed(name, ErrorCode.TIMEOUT, "too late to start", attempt[2]), expected
        behaviour = self.host.behaviours[dispatch.task_id, name].of(dispatched.attempt)
        if dispatched.step.effect == Effect.side_effecting:
            return await self.run_once(dispatch, attempt, behaviour, cancel, expected)
        return await self.spawn(attempt, behaviour, cancel), expected

    async def run_once(
        self, dispatch: Event, attempt: Attempt, behaviour: Behaviour, cancel: asyncio.Event, expected: Position
    ) -> tuple[Payload, Position] | None:
        """A side-effecting step: claimed before it starts, and its log read after that."""
        if attempt in self.host.claims:
            return failed(attempt[1], ErrorCode.UNKNOWN_OUTCOME, "an executor ended while it ran", attempt[2]), expected
        self.host.claims.add(attempt)
        await self.client.crash_point(f"after the claim of {attempt[1]}")
        if await self.is_settled(dispatch, attempt):
            return None
        return await self.spawn(attempt, behaviour, cancel), expected

    async def is_settled(self, dispatch: Event, attempt: Attempt) -> bool:
        try:
            return _is_closed(await self.log.read(dispatch.task_id, after=dispatch.position), attempt)
        except LogError:
            # Nothing has been started: the claim would only turn the next delivery into an unknown outcome.
            self.host.claims.discard(attempt)
            raise

    async def spawn(self, attempt: Attempt, behaviour: Behaviour, cancel: asyncio.Event) -> Payload:
        """The program runs; somewhere in between its effect takes place."""
        if behaviour.code == ErrorCode.SANDBOX_UNAVAILABLE:
            return failed(attempt[1], behaviour.code, "nothing has run", attempt[2])
        before = self.rng.uniform(0, behaviour.seconds)
        if await _cancelled_within(cancel, before):
            return failed(attempt[1], ErrorCode.CANCELLED, "killed on request", attempt[2])
        self.host.effects[attempt] = self.host.effects.get(attempt, 0) + 1
        await self.client.crash_point(f"after the effect of {attempt[1]}")
        if await _cancelled_within(cancel, behaviour.seconds - before):
            return failed(attempt[1], ErrorCode.CANCELLED, "killed on request", attempt[2])
        if behaviour.is_silent:
            raise Silent
        if behaviour.code is not None:
            return failed(attempt[1], behaviour.code, "as the test says", attempt[2])
        # Two runs of a step don't say the same: each knows how long it took.
        report = executed(attempt[1], f"{attempt[1]}\n", attempt=attempt[2])
        assert isinstance(report, StepExecuted)
        usage = msgspec.structs.replace(report.usage, duration_ms=self.rng.randrange(1, 1_000_000))
        return msgspec.structs.replace(report, usage=usage)

    async def settle(self, dispatch: Event, attempt: Attempt, report: Payload, expected: Position) -> None:
        """Puts the result on record, unless the attempt has one."""
        new = NewEvent(payload=report, causation_id=dispatch.id, key=f"1/{attempt[1]}/{attempt[2]}")
        while True:
            try:
                await self.log.append(dispatch.task_id, new, expected)
            except TaskEnded:
                return
            except Conflict:
                since = await self._since(dispatch, expected)
                if not since:
                    raise Again from None
                own = event_id(dispatch.task_id, dispatch.id, new.kind, new.key)
                if any(event.id == own and event.body == encode(report) for event in since):
                    return
                if not self.may_append(since, attempt):
                    return
                expected = since[-1].position
            except LogError:
                await asyncio.sleep(0.5)
            else:
                return

    def may_append(self, since: list[Event], attempt: Attempt) -> bool:
        """Whether the attempt still waits for its result."""
        return not _is_closed(since, attempt)

    async def _since(self, dispatch: Event, expected: Position) -> list[Event]:
        while True:
            with contextlib.suppress(LogError):
                return await self.log.read(dispatch.task_id, after=expected)
            await asyncio.sleep(0.5)


def _about(event: Event) -> Attempt:
    return event.task_id, event.data["step_id"], event.data["attempt"]


def _is_closed(events: list[Event], attempt: Attempt) -> bool:
    return any(
        event.terminal or (event.kind in ("step.executed", "step.failed") and _about(event) == attempt)
        for event in events
    )


async def _cancelled_within(cancel: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await cancel.wait()
    return cancel.is_set()
