"""Durable consumers: at-least-once deliveries that a service answers for.

What a handler raises says what becomes of its delivery (events/README.md, Deliveries):
    nothing      it is done, and acknowledged
    Unavailable  a dependency is down: handed back, which counts nowhere; nothing more is taken until one goes through
    NotNow       handed back, though nothing is wrong
    Unreadable   it can never be handled: given up at once
    all else     a failure: counted, tried again after a growing delay, given up after the fifth
"""

import asyncio
import contextlib
import random
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog
from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events.envelope import Event, Undecodable
from octollm.events.gate import Gate, Unavailable
from octollm.events.log import Forbidden, LogError, LogFull, LogUnavailable
from octollm.events.pull import Pull, Pulled
from octollm.events.schema import SchemaViolation
from octollm.events.streams import definitions

ATTEMPTS = 5
"""Failures of one message after which it is given up."""

_FIRST_DELAY_S = 0.5
_COUNTED = 4096
_REASON_LENGTH = 300

_log = structlog.get_logger()


class Failed(Exception):
    """A handler can't do what a delivery asks for. The text goes into the dead-letter view: no secrets, no payload."""


class Unreadable(Failed):
    """A delivery that no attempt will ever make readable."""


class NotNow(Exception):
    """Nothing is wrong, but the delivery should come again in `delay_s` seconds."""

    def __init__(self, reason: str, delay_s: float) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Settled(StrEnum):
    """What became of a delivery."""

    DONE = "done"
    NOT_NOW = "not_now"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a delivery, and why: what its handler raised, or the Unavailable that it comes down to."""

    outcome: Settled
    error: Exception | None = None

    @property
    def is_failure(self) -> bool:
        """The handler, or the message, is to blame."""
        return self.outcome in (Settled.FAILED, Settled.GIVEN_UP)


class Failures:
    """Failures by message, in memory: `num_delivered` counts outages and restarts too, so it is no count of them.

    Bounded: what was counted longest ago is forgotten, and gets more attempts for it.
    """

    def __init__(self, kept: int = _COUNTED) -> None:
        self._kept = kept
        self._counts: OrderedDict[int, int] = OrderedDict()

    def count(self, seq: int) -> int:
        """Counts one more failure of a message; how many there are now."""
        self._counts[seq] = count = self._counts.pop(seq, 0) + 1
        if len(self._counts) > self._kept:
            self._counts.popitem(last=False)
        return count

    def forget(self, seq: int) -> None:
        """The message is settled."""
        self._counts.pop(seq, None)


Handler = Callable[["Delivery"], Awaitable[None]]


class Delivery:
    """One delivery. `settle` has it handled and answers for it; who does without answers once, with `ack` or `nak`."""

    def __init__(self, consumer: "Consumer", message: Pulled) -> None:
        self._consumer = consumer
        self._message = message

    @property
    def subject(self) -> str:
        """The message's own subject."""
        return self._message.subject

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers."""
        return self._message.headers

    @property
    def data(self) -> bytes:
        """The message's body."""
        return self._message.data

    @property
    def seq(self) -> int:
        """Stream sequence."""
        return self._message.seq

    @property
    def stored_at(self) -> datetime:
        """The broker's time of the message, UTC."""
        return self._message.stored_at

    @property
    def num_delivered(self) -> int:
        """1 for the first delivery; a broker that crashed counts from 1 again."""
        return self._message.delivered

    @property
    def redelivered(self) -> bool:
        """It was delivered before: what it asks for may be done already."""
        return self._message.delivered > 1

    @property
    def event(self) -> Event:
        """The message as an event; raises Undecodable."""
        message = self._message
        return Event.parse(message.subject, message.headers, message.data, message.seq, message.stored_at)

    async def settle(self, handler: Handler) -> Settlement:
        """Has the delivery handled, which may take as long as it takes, and answers for it.

        A handler that is cancelled has it handed back at once. A lost answer only means one more delivery.
        """
        gate, failures = self._consumer.gate, self._consumer.failures
        try:
            with self._kept():
                await handler(self)
        except asyncio.CancelledError:
            await self.nak(0)
            raise
        except Exception as error:
            if (down := outage(error)) is not None:
                gate.close(self.seq, down)
                await self.nak(gate.delay_s)
                return Settlement(Settled.UNAVAILABLE, down)
            gate.went_through(self.seq)
            if isinstance(error, NotNow):
                await self.nak(error.delay_s)
                return Settlement(Settled.NOT_NOW, error)
            return await self._failed(error)
        gate.went_through(self.seq)
        failures.forget(self.seq)
        await self.ack()
        return Settlement(Settled.DONE)

    async def _failed(self, error: Exception) -> Settlement:
        failures = self._consumer.failures
        count, reason = failures.count(self.seq), told(error)
        given_up = count >= ATTEMPTS or isinstance(error, Unreadable | Undecodable)
        delay_s = _FIRST_DELAY_S * 2 ** (count - 1) * random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
        _log.error(
            "delivery not handled",
            subject=self.subject,
            seq=self.seq,
            deliveries=self.num_delivered,
            failures=count,
            reason=reason,
            next="given up (octo dlq ls)" if given_up else f"tried again in {delay_s:.1f} s",
        )
        if given_up:
            failures.forget(self.seq)
            await self._term(f"{self.subject} {reason}")
            return Settlement(Settled.GIVEN_UP, error)
        await self.nak(delay_s)
        return Settlement(Settled.FAILED, error)

    async def ack(self) -> None:
        """Done: never deliver it again. A lost ack only means one more delivery."""
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """Deliver it again after a delay in seconds."""
        await self._answer(b"-NAK " + msgspec.json.encode({"delay": int(delay_s * 1e9)}))

    async def _term(self, reason: str) -> None:
        # The broker puts the reason into its advisory, which the stream ADVISORY keeps.
        await self._answer(b"+TERM " + " ".join(reason.split())[:_REASON_LENGTH].encode())

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Tells the broker every third of the consumer's ack_wait that the delivery is being worked on."""
        loop = asyncio.get_running_loop()
        interval = self._consumer.ack_wait_s / 3
        beats: set[asyncio.Task[None]] = set()
        # A timer and no task: most handlers end long before the first beat.
        timer: list[asyncio.TimerHandle] = []

        def beat() -> None:
            beats.add(task := asyncio.create_task(self._answer(b"+WPI")))
            task.add_done_callback(beats.discard)
            timer[:] = [loop.call_later(interval, beat)]

        timer.append(loop.call_later(interval, beat))
        try:
            yield
        finally:
            timer[0].cancel()

    async def _answer(self, word: bytes) -> None:
        try:
            await self._consumer.client.publish(self._message.reply, word)
        except nats_errors.Error as error:
            _log.info("answer lost; it will be delivered again", subject=self.subject, error=type(error).__name__)


class Consumer:
    """A durable pull consumer of streams.json. Iterate once; `close` ends the iteration.

    `gate` stops it while a dependency is down; `gate.check` is for `/ready`.
    """

    def __init__(self, client: Client, stream: str, durable: str, batch: int = 64) -> None:
        self.client = client
        self.gate = Gate()
        self.failures = Failures()
        self.ack_wait_s = _ack_wait_s(stream, durable)
        self._pull = Pull(client, stream, durable, batch, lambda: self.gate.leave(batch))

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for message in self._pull:
            delivery = Delivery(self, message)
            if self.gate.admits(delivery.seq):
                yield delivery
            else:
                await delivery.nak(self.gate.delay_s)

    async def close(self) -> None:
        """Takes no further deliveries."""
        await self._pull.close()


def told(error: Exception) -> str:
    """An error for logs and the dead-letter view: its class, and its text where that can hold no payload.

    A defect may quote anything it was working on; of it only the place is told.
    """
    if isinstance(error, Failed | LogError | Undecodable | SchemaViolation):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}"


def outage(error: Exception) -> Unavailable | None:
    """The dependency that is down behind an error; None for an error that a task or a defect is to blame for."""
    match error:
        case Unavailable():
            return error
        case LogUnavailable() | LogFull() | Forbidden():
            # A log that is full or forbidden is so for every task: an operator's matter, and no task's fault.
            return Unavailable("log", str(error))
        case nats_errors.Error():
            return Unavailable("nats", type(error).__name__)
        case _:
            return None


def _ack_wait_s(stream: str, durable: str) -> float:
    configured: dict[tuple[str, str], int] = {
        (consumer["stream"], consumer["durable_name"]): consumer["ack_wait"] for consumer in definitions()["consumers"]
    }
    return configured[stream, durable] / 1e9
