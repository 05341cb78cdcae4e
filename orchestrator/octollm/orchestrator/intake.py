"""Takes what the broker delivers and has the runner carry it out."""

import asyncio
from time import perf_counter

import structlog
from msgspec import UNSET
from nats.aio.client import Client

from octollm.events import failpoint, schema
from octollm.events.carrier import TaskApprove, TaskCancel, TaskResume
from octollm.events.consumer import Consumer, Delivery, Handler, Unreadable
from octollm.events.gate import Unavailable
from octollm.orchestrator import metrics
from octollm.orchestrator.recovery import Recovery
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.saga import CancelAsked

_log = structlog.get_logger()


class Intake:
    """The three consumers of the orchestrator: `saga` on EVENTS, `orchestrator` on COMMANDS and on TIMERS."""

    def __init__(self, client: Client, runner: Runner, recovery: Recovery) -> None:
        self._runner = runner
        self._recovery = recovery
        self._handling: set[asyncio.Task[None]] = set()
        self._sources: tuple[tuple[str, Consumer, Handler], ...] = (
            ("EVENTS", Consumer(client, "EVENTS", "saga", batch=128), self._event),
            ("COMMANDS", Consumer(client, "COMMANDS", "orchestrator", batch=32), self._command),
            ("TIMERS", Consumer(client, "TIMERS", "orchestrator", batch=64), self._timer),
        )

    async def check(self) -> None:
        """For `/ready`: raises Unavailable while a consumer takes nothing because a dependency is down."""
        for _, consumer, _ in self._sources:
            await consumer.gate.check()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then takes nothing more and returns when what was taken is done."""
        async with asyncio.TaskGroup() as group:
            for stream, consumer, handler in self._sources:
                group.create_task(self._take(stream, consumer, handler))
            recovering = group.create_task(self._recovery.run())
            await stopping.wait()
            recovering.cancel()
            for _, consumer, _ in self._sources:
                await consumer.close()
        while self._handling:
            await asyncio.wait(self._handling)

    async def _take(self, stream: str, consumer: Consumer, handler: Handler) -> None:
        # Tasks of the event loop start in the order of their making, so deliveries of one task keep theirs.
        async for delivery in consumer:
            task = asyncio.create_task(self._handle(stream, delivery, handler))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)

    async def _handle(self, stream: str, delivery: Delivery, handler: Handler) -> None:
        metrics.DELIVERIES.labels(stream).inc()
        if delivery.redelivered:
            metrics.REDELIVERIES.labels(stream).inc()
        started = perf_counter()
        with metrics.IN_FLIGHT.track_inprogress():
            settlement = await delivery.settle(handler)
            failpoint.reach("orchestrator.answered")
        if settlement.is_failure:
            metrics.HANDLER_FAILURES.labels(stream, type(settlement.error).__name__).inc()
        if isinstance(settlement.error, Unavailable):
            metrics.HANDED_BACK.labels(settlement.error.dependency).inc()
        metrics.DECISION_SECONDS.labels(stream).observe(perf_counter() - started)

    async def _event(self, delivery: Delivery) -> None:
        failpoint.reach("orchestrator.event_taken")
        await self._runner.event(delivery.event)

    async def _timer(self, delivery: Delivery) -> None:
        failpoint.reach("orchestrator.timer_taken")
        await self._runner.timer_fired(delivery.subject.removeprefix("timer.fired."), delivery.stored_at)

    async def _command(self, delivery: Delivery) -> None:
        failpoint.reach("orchestrator.command_taken")
        try:
            command = schema.decode(delivery.subject, delivery.data)
        except schema.SchemaViolation as error:
            metrics.COMMANDS.labels(delivery.subject, "unreadable").inc()
            raise Unreadable(str(error)) from error
        match command:
            case TaskCancel():
                asked = CancelAsked(command.requested_by, None if command.reason is UNSET else command.reason)
                outcome = "done" if await self._runner.cancel(command.task_id, asked) else "nothing_to_do"
            case TaskResume():
                is_open = await self._runner.resume(command.task_id, command.requested_by)
                outcome = "done" if is_open else "nothing_to_do"
            case TaskApprove():
                outcome = "unsupported"
            case _:
                raise Unreadable(f"{delivery.subject} is no command of the orchestrator's")
        metrics.COMMANDS.labels(delivery.subject, outcome).inc()
        _log.info("command taken", command=delivery.subject, task_id=command.task_id, outcome=outcome)
