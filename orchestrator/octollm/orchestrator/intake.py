"""Takes what the broker delivers and answers for it: acks what is done, asks again for what is not."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import perf_counter

import structlog
from msgspec import UNSET
from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events import failpoint, schema
from octollm.events.carrier import TaskApprove, TaskCancel, TaskResume
from octollm.events.consumer import Consumer, Delivery
from octollm.events.envelope import Undecodable
from octollm.orchestrator import metrics
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.saga import CancelAsked

LONGEST_DELAY_S = 30.0
"""Between two deliveries of what can't be handled."""

Handler = Callable[[Delivery], Awaitable[None]]

_log = structlog.get_logger()


class Unreadable(Exception):
    """A delivery that will never be readable: it is given up, and counted."""


class Intake:
    """The three consumers of the orchestrator: `saga` on EVENTS, `orchestrator` on COMMANDS and on TIMERS."""

    def __init__(self, client: Client, runner: Runner) -> None:
        self._client = client
        self._runner = runner
        self._handling: set[asyncio.Task[None]] = set()
        self._sources: tuple[tuple[str, Consumer, Handler], ...] = (
            ("EVENTS", Consumer(client, "EVENTS", "saga", batch=128), self._event),
            ("COMMANDS", Consumer(client, "COMMANDS", "orchestrator", batch=32), self._command),
            ("TIMERS", Consumer(client, "TIMERS", "orchestrator", batch=64), self._timer),
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then takes nothing more and returns when what was taken is done."""
        async with asyncio.TaskGroup() as group:
            for stream, consumer, handler in self._sources:
                group.create_task(self._take(stream, consumer, handler))
            watching = group.create_task(self._rearm_after_reconnects())
            await stopping.wait()
            watching.cancel()
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
            try:
                await handler(delivery)
                answer = delivery.ack()
            except Unreadable as error:
                self._failed(stream, delivery, error, "given up: it will never be readable")
                answer = delivery.term()
            except Exception as error:
                delay = _delay(delivery.num_delivered)
                self._failed(stream, delivery, error, f"will be tried again in {delay:.1f} s")
                answer = delivery.nak(delay)
            try:
                await answer
                failpoint.reach("orchestrator.answered")
            except nats_errors.Error as error:
                _log.info("an answer was lost; it will be delivered again", subject=delivery.subject, error=str(error))
        metrics.DECISION_SECONDS.labels(stream).observe(perf_counter() - started)

    def _failed(self, stream: str, delivery: Delivery, error: Exception, next_step: str) -> None:
        kind = type(error).__name__
        metrics.HANDLER_FAILURES.labels(stream, kind).inc()
        _log.error(
            "delivery not handled",
            subject=delivery.subject,
            seq=delivery.seq,
            deliveries=delivery.num_delivered,
            error=kind,
            reason=str(error),
            next=next_step,
        )

    async def _event(self, delivery: Delivery) -> None:
        failpoint.reach("orchestrator.event_taken")
        try:
            event = delivery.event
        except Undecodable as error:
            raise Unreadable(str(error)) from error
        await self._runner.event(event)

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
                outcome = "done" if await self._runner.resume(command.task_id) else "nothing_to_do"
            case TaskApprove():
                outcome = "unsupported"
            case _:
                raise Unreadable(f"{delivery.subject} is no command of the orchestrator's")
        metrics.COMMANDS.labels(delivery.subject, outcome).inc()
        _log.info("command taken", command=delivery.subject, task_id=command.task_id, outcome=outcome)

    async def _rearm_after_reconnects(self) -> None:
        """TIMERS is not synced at once: after a crash of the broker the deadlines of open tasks are set again."""
        seen = self._client.stats["reconnects"]
        while True:
            await asyncio.sleep(1)
            if self._client.stats["reconnects"] != seen and self._client.is_connected:
                try:
                    await self._runner.rearm()
                    seen = self._client.stats["reconnects"]
                except Exception as error:
                    _log.error("deadlines not set again yet", error=type(error).__name__, reason=str(error))


def _delay(deliveries: int) -> float:
    """Seconds: doubles with each delivery from half a second, half of it jitter."""
    longest: float = min(LONGEST_DELAY_S, 0.25 * 2 ** min(deliveries, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
