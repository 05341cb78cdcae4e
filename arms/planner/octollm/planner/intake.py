"""Takes received tasks from the broker and puts their plans on record, once each, whatever is delivered how often.

Level-triggered: a delivery only says that a task may need a plan. On a redelivery, and when an append finds the task
moved on, the task is read, and planned only if it still waits for it.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from time import perf_counter

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events import failpoint
from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, TaskReceived
from octollm.events.consumer import Consumer, Delivery
from octollm.events.envelope import Event, NewEvent, Position, Undecodable, event_id
from octollm.events.log import Conflict, Log, TaskEnded, TooLarge
from octollm.events.schema import SchemaViolation, encode, kind_of
from octollm.planner import metrics
from octollm.planner.outcome import PLAN_VERSION, Outcome, failed_plan
from octollm.planner.planning import Planning

ACK_WAIT_S = 30.0
"""`ack_wait` of the consumer `planner` in streams.json."""

LONGEST_DELAY_S = 30.0
"""Between two deliveries of what could not be handled."""

_DURABLE = "planner"
_SETTLING = frozenset({"task.planned", "plan.failed", "task.cancel_requested"})

_log = structlog.get_logger()


class InHand(Exception):
    """A task was delivered again while this process still plans it: a heartbeat was lost."""


class Intake:
    """The consumer `planner` on EVENTS. `concurrency`: tasks planned at once; more are taken and wait their turn."""

    def __init__(self, client: Client, log: Log, planning: Planning, concurrency: int) -> None:
        self._consumer = Consumer(client, "EVENTS", _DURABLE)
        self._log = log
        self._planning = planning
        self._free = asyncio.Semaphore(concurrency)
        self._handling: set[asyncio.Task[None]] = set()
        self._in_hand: set[str] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then takes nothing more and returns when what was taken is done.

        Cancelled before that, it hands what is not done back to the broker at once.
        """
        taking = asyncio.create_task(self._take())
        asked = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({taking, asked}, return_when=asyncio.FIRST_COMPLETED)
            await self._consumer.close()
            await taking
            while self._handling:
                await asyncio.wait(self._handling)
        except asyncio.CancelledError:
            # First the pull: what is handed back must not come to a reader that is about to leave.
            for tasks in ({taking}, set(self._handling)):
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:
            asked.cancel()

    async def _take(self) -> None:
        async for delivery in self._consumer:
            task = asyncio.create_task(self._handle(delivery))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)

    async def _handle(self, delivery: Delivery) -> None:
        failpoint.reach("planner.taken")
        if delivery.redelivered:
            metrics.REDELIVERIES.inc()
        with metrics.IN_FLIGHT.track_inprogress(), contextlib.suppress(nats_errors.Error):
            try:
                async with _in_progress(delivery):
                    await self._settle(delivery)
            except asyncio.CancelledError:
                await delivery.nak(0)
                raise
            except InHand:
                await delivery.nak(ACK_WAIT_S / 3)
            except Undecodable as error:
                self._failed(delivery, error, "given up: it will never be readable")
                await delivery.term()
            except Exception as error:
                delay = _delay(delivery.num_delivered)
                self._failed(delivery, error, f"will be tried again in {delay:.1f} s")
                await delivery.nak(delay)
            else:
                await delivery.ack()
                failpoint.reach("planner.acked")

    def _failed(self, delivery: Delivery, error: Exception, next_step: str) -> None:
        metrics.HANDLER_FAILURES.labels(type(error).__name__).inc()
        _log.error(
            "task not planned",
            task_id=delivery.subject.rpartition(".")[2],
            seq=delivery.seq,
            deliveries=delivery.num_delivered,
            error=type(error).__name__,
            reason=str(error),
            next=next_step,
        )

    async def _settle(self, delivery: Delivery) -> None:
        """Plans the delivered task if it waits for a plan."""
        received = delivery.event
        task = received.payload
        if not isinstance(task, TaskReceived):
            raise Undecodable(f"{delivery.subject} is no received task")
        if received.task_id in self._in_hand:
            raise InHand(f"task {received.task_id} is being planned here already")
        self._in_hand.add(received.task_id)
        try:
            async with self._free:
                await self._plan(received, task, delivery.redelivered)
        finally:
            self._in_hand.discard(received.task_id)

    async def _plan(self, received: Event, task: TaskReceived, redelivered: bool) -> None:
        started = perf_counter()
        position = received.position
        if redelivered:
            since = await self._log.read(received.task_id, after=position)
            failpoint.reach("planner.read")
            if _settled(since):
                metrics.ALREADY_SETTLED.inc()
                return
            position = since[-1].position if since else position
        outcome = await self._planning.plan(received.task_id, task, received.stored_at)
        failpoint.reach("planner.planned")
        stored = await self._append(received, outcome, position)
        if stored is None:
            metrics.LATE.inc()
            _log.info("plan thrown away: the task no longer waits for one", task_id=received.task_id)
            return
        result = stored.class_.value if isinstance(stored, PlanFailed) else "planned"
        metrics.PLANS.labels(stored.provider, result).inc()
        metrics.PLAN_SECONDS.labels(stored.provider).observe(perf_counter() - started)
        _log.info("task planned", task_id=received.task_id, provider=stored.provider, outcome=result)

    async def _append(self, received: Event, outcome: Outcome, position: Position) -> Outcome | None:
        """What went on record; None if the task no longer waits for a plan."""
        while True:
            new = NewEvent(
                payload=outcome, causation_id=received.id, key=str(PLAN_VERSION), traceparent=received.traceparent
            )
            try:
                await self._log.append(received.task_id, new, position)
                failpoint.reach("planner.appended")
            except TaskEnded:
                return None
            except (SchemaViolation, TooLarge) as error:
                if isinstance(outcome, PlanFailed):
                    raise
                outcome = _unstorable(outcome.provider, error)
            except Conflict:
                metrics.CONFLICTS.inc()
                since = await self._log.read(received.task_id, after=position)
                if _holds(since, received, outcome):
                    return outcome
                if not since or _settled(since):
                    return None
                position = since[-1].position
            else:
                return outcome


def _settled(events: Sequence[Event]) -> bool:
    """Whether the task needs no plan any more: it has one, or it ends."""
    return any(event.kind in _SETTLING or event.terminal for event in events)


def _holds(events: Sequence[Event], received: Event, outcome: Outcome) -> bool:
    """Whether this very outcome is on record: the append succeeded and its answer was lost."""
    own = event_id(received.task_id, received.id, kind_of(outcome), str(PLAN_VERSION))
    return any(event.id == own and event.body == encode(outcome) for event in events)


def _unstorable(provider: str, error: Exception) -> PlanFailed:
    """A plan that the contract doesn't admit, by size or after screening."""
    return failed_plan(
        provider,
        ErrorCode.PAYLOAD_TOO_LARGE if isinstance(error, TooLarge) else ErrorCode.PLANNING_FAILED,
        PlanFailureClass.invalid_plan,
        f"The plan can't go on record: {error}. Make it smaller, and put large texts into files.",
    )


@contextlib.asynccontextmanager
async def _in_progress(delivery: Delivery) -> AsyncIterator[None]:
    """Keeps the delivery from coming again while it is being worked on."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            with contextlib.suppress(nats_errors.Error):
                await delivery.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


def _delay(deliveries: int) -> float:
    """Seconds: doubles with each delivery from half a second, half of it jitter."""
    longest: float = min(LONGEST_DELAY_S, 0.25 * 2.0 ** min(deliveries, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
