"""Takes what asks for a plan from the broker and puts plans on record, once each, whatever is delivered how often.

Level-triggered: a delivery (`task.received`, or `plan.requested` where the saga asks again) only says that a task may
need a plan. On a redelivery, and when an append finds the task moved on, the task is read, and planned only if it still
waits for it.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter

import structlog
from nats.aio.client import Client

from octollm.events import failpoint
from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, PlanRequested, TaskReceived
from octollm.events.consumer import Consumer, Delivery, NotNow, Settled, Unreadable
from octollm.events.envelope import Event, NewEvent, Position, event_id
from octollm.events.gate import Unavailable
from octollm.events.log import Conflict, Log, TaskEnded, TooLarge
from octollm.events.schema import SchemaViolation, encode, kind_of
from octollm.planner import metrics
from octollm.planner.outcome import PLAN_VERSION, Outcome, failed_plan
from octollm.planner.planning import Planning

IN_HAND_DELAY_S = 10.0
"""When a task that is being planned here comes again, though it was delivered to this very process."""

_DURABLE = "planner"
_SETTLING = frozenset({"task.planned", "plan.failed", "task.cancel_requested"})

_log = structlog.get_logger()


class Intake:
    """The consumer `planner` on EVENTS. `concurrency`: tasks planned at once; more are taken and wait their turn."""

    def __init__(self, client: Client, log: Log, planning: Planning, concurrency: int) -> None:
        self._consumer = Consumer(client, "EVENTS", _DURABLE)
        self._log = log
        self._planning = planning
        self._free = asyncio.Semaphore(concurrency)
        self._handling: set[asyncio.Task[None]] = set()
        self._in_hand: set[str] = set()

    async def check(self) -> None:
        """For `/ready`: raises Unavailable while nothing is taken because a dependency is down."""
        await self._consumer.gate.check()

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
        with metrics.IN_FLIGHT.track_inprogress():
            settlement = await delivery.settle(self._settle)
        if settlement.is_failure:
            metrics.HANDLER_FAILURES.labels(type(settlement.error).__name__).inc()
        if isinstance(settlement.error, Unavailable):
            metrics.HANDED_BACK.labels(settlement.error.dependency).inc()
        if settlement.outcome is Settled.DONE:
            failpoint.reach("planner.acked")

    async def _settle(self, delivery: Delivery) -> None:
        """Plans the delivered task if it waits for a plan."""
        asking = delivery.event
        if asking.task_id in self._in_hand:
            raise NotNow(f"task {asking.task_id} is being planned here already", IN_HAND_DELAY_S)
        self._in_hand.add(asking.task_id)
        try:
            async with self._free:
                await self._plan(asking, await self._received(asking), delivery.redelivered)
        finally:
            self._in_hand.discard(asking.task_id)

    async def _received(self, asking: Event) -> Event:
        """The task's first event, which says what is to be planned."""
        match asking.payload:
            case TaskReceived():
                return asking
            case PlanRequested():
                return (await self._log.read(asking.task_id))[0]
            case _:
                raise Unreadable(f"{asking.subject} asks for no plan")

    async def _plan(self, asking: Event, received: Event, redelivered: bool) -> None:
        started = perf_counter()
        task, position = received.payload, asking.position
        if not isinstance(task, TaskReceived):
            raise Unreadable(f"task {received.task_id} begins with {received.kind}")
        if redelivered:
            since = await self._log.read(received.task_id, after=position)
            failpoint.reach("planner.read")
            if _settled(since):
                metrics.ALREADY_SETTLED.inc()
                return
            position = since[-1].position if since else position
        outcome = await self._planning.plan(received.task_id, task, received.stored_at)
        failpoint.reach("planner.planned")
        stored = await self._append(asking, outcome, position)
        if stored is None:
            metrics.LATE.inc()
            _log.info("plan thrown away: the task no longer waits for one", task_id=received.task_id)
            return
        result = stored.class_.value if isinstance(stored, PlanFailed) else "planned"
        metrics.PLANS.labels(stored.provider, result).inc()
        metrics.PLAN_SECONDS.labels(stored.provider).observe(perf_counter() - started)
        _log.info("task planned", task_id=received.task_id, provider=stored.provider, outcome=result)

    async def _append(self, asking: Event, outcome: Outcome, position: Position) -> Outcome | None:
        """What went on record; None if the task no longer waits for a plan."""
        while True:
            new = NewEvent(
                payload=outcome, causation_id=asking.id, key=str(PLAN_VERSION), traceparent=asking.traceparent
            )
            try:
                await self._log.append(asking.task_id, new, position)
                failpoint.reach("planner.appended")
            except TaskEnded:
                return None
            except (SchemaViolation, TooLarge) as error:
                if isinstance(outcome, PlanFailed):
                    raise
                outcome = _unstorable(outcome.provider, error)
            except Conflict:
                metrics.CONFLICTS.inc()
                since = await self._log.read_on(asking.task_id, position)
                if _holds(since, asking, outcome):
                    return outcome
                if not since or _settled(since):
                    return None
                position = since[-1].position
            else:
                return outcome


def _settled(events: Sequence[Event]) -> bool:
    """Whether the task needs no plan any more: it has one, or it ends."""
    return any(event.kind in _SETTLING or event.terminal for event in events)


def _holds(events: Sequence[Event], asking: Event, outcome: Outcome) -> bool:
    """Whether this very outcome is on record: the append succeeded and its answer was lost."""
    own = event_id(asking.task_id, asking.id, kind_of(outcome), str(PLAN_VERSION))
    return any(event.id == own and event.body == encode(outcome) for event in events)


def _unstorable(provider: str, error: Exception) -> PlanFailed:
    """A plan that the contract doesn't admit, by size or after screening."""
    return failed_plan(
        provider,
        ErrorCode.PAYLOAD_TOO_LARGE if isinstance(error, TooLarge) else ErrorCode.PLANNING_FAILED,
        PlanFailureClass.invalid_plan,
        f"The plan can't go on record: {error}. Make it smaller, and put large texts into files.",
    )
