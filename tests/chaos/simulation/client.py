"""A connection to the broker in memory: what the services use of nats-py, on a network that delays and loses."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from nats import errors as nats_errors

from octollm.events import bus
from tests.chaos.simulation.broker import Broker, Message
from tests.chaos.simulation.loop import OWNER, Process

Callback = Callable[[Message], Coroutine[Any, Any, None]]


class Subscription:
    """Messages to one inbox, in the order in which they were sent."""

    def __init__(self, client: "SimulatedClient", inbox: str, callback: Callback) -> None:
        self._client = client
        self._inbox = inbox
        self._callback = callback
        self._last_arrival = 0.0
        self._open = True

    def deliver(self, message: Message) -> bool:
        """From the broker; false where nobody listens any more."""
        client = self._client
        if not (self._open and client.is_connected and client.process.alive):
            return False
        # Later than the one before by more than nothing: timers of the same moment have no order.
        self._last_arrival = max(self._last_arrival + 1e-6, client.loop.now + client.latency())
        client.loop.call_at(self._last_arrival, self._arrive, message, client.connection)
        return True

    async def unsubscribe(self) -> None:
        self._open = False
        self._client.subscriptions.pop(self._inbox, None)

    drain = unsubscribe

    def _arrive(self, message: Message, connection: int) -> None:
        if self._open and connection == self._client.connection:
            self._client.call_back(self._callback, message)


class SimulatedClient:
    """The connection of one process. `connection` counts: what was under way on an earlier one is lost."""

    def __init__(self, broker: Broker, process: Process, rng: Random, on_crash: Callable[[Process], None]) -> None:
        self.broker = broker
        self.process = process
        self.loop = broker.loop
        self.connection = 0
        self.is_connected = broker.up
        self.stats = {"reconnects": 0}
        self.subscriptions: dict[str, Subscription] = {}
        self._listeners: list[tuple[str, Callback]] = []
        self._rng = rng
        self._on_crash = on_crash
        self._inboxes = 0
        self._last_arrival = 0.0
        self._unsent: list[tuple[Message, Callable[[Message], None]]] = []
        broker.republish.append(self._republished)

    @property
    def is_closed(self) -> bool:
        return not self.process.alive

    def new_inbox(self) -> str:
        self._inboxes += 1
        return f"_INBOX.{self._inboxes}"

    def latency(self) -> float:
        """Seconds on the way."""
        faults = self.broker.faults
        if self._rng.random() < faults.slow:
            return self._rng.uniform(0, faults.delay_s)
        return self._rng.uniform(0.0001, 0.001)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109  # the interface of nats-py
        headers: dict[str, str] | None = None,
    ) -> Message:
        answer: asyncio.Future[Message] = self.loop.create_future()

        def reply(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        def expire() -> None:
            if not answer.done():
                answer.set_exception(nats_errors.TimeoutError())

        handle = self.loop.call_later(timeout, expire)
        try:
            await self._send(Message(subject, headers, payload), lambda message: self._answer(message, reply))
            return await answer
        finally:
            handle.cancel()
            answer.cancel()

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        lost = self._rng.random() < self.broker.faults.lost_reply

        def answer(message: Message) -> None:
            if not lost and (subscription := self.subscriptions.get(reply)):
                subscription.deliver(message)

        await self._send(Message(subject, None, payload, reply), answer)

    async def subscribe(
        self,
        subject: str,
        cb: Callback,
        **_limits: Any,
    ) -> Subscription:
        subscription = Subscription(self, subject, cb)
        if subject.startswith("log."):
            self._listeners.append((subject.removesuffix("*"), cb))
        else:
            self.subscriptions[subject] = subscription
        return subscription

    def disconnect(self) -> None:
        """The broker is gone, and with it what was under way."""
        self.is_connected = False
        self.connection += 1
        if self.process.alive:
            self.process.start(bus.disconnected(self))  # type: ignore[arg-type]  # the part of nats-py that is used

    def reconnect(self) -> None:
        """The broker is back; what the client has kept is sent."""
        if self.is_connected or not self.broker.up:
            return
        self.is_connected = True
        self.stats["reconnects"] += 1
        for message, reply in self._unsent:
            self._put_on_wire(message, reply, is_last=False)
        self._unsent.clear()
        bus.reconnected(self)  # type: ignore[arg-type]  # the part of nats-py that is used

    async def _send(self, message: Message, reply: Callable[[Message], None]) -> None:
        if not self.process.alive:
            raise nats_errors.ConnectionClosedError
        faults = self.broker.faults
        crashes = self._rng.random() < faults.crash
        if crashes and self._rng.random() < 0.5:
            await self._die(f"before {message.subject}")
        if not self.is_connected:
            self._unsent.append((message, reply))
            return
        is_answer = message.subject.startswith("$JS.ACK.")
        if self._rng.random() < (faults.lost_answer if is_answer else faults.lost_request):
            self.broker.note(f"{self.process.name}: lost {_shown(message)}")
            return
        self._put_on_wire(message, reply, is_last=crashes)

    def _put_on_wire(self, message: Message, reply: Callable[[Message], None], *, is_last: bool) -> None:
        # One connection is one stream of bytes: nothing overtakes.
        self._last_arrival = max(self._last_arrival + 1e-6, self.loop.now + self.latency())
        self.loop.call_at(self._last_arrival, self._arrive, message, reply, self.connection, is_last)

    def _arrive(self, message: Message, reply: Callable[[Message], None], connection: int, is_last: bool) -> None:
        if not self.broker.up or connection != self.connection:
            return

        def pulling(delivered: Message) -> bool:
            subscription = self.subscriptions.get(message.reply)
            return subscription is not None and subscription.deliver(delivered)

        self.broker.take(message, reply, pulling)
        if is_last and self.process.alive:
            self._crash(f"after {_shown(message)}")

    def _answer(self, message: Message, reply: Callable[[Message], None]) -> None:
        if self._rng.random() < self.broker.faults.lost_reply:
            self.broker.note(f"{self.process.name}: lost the broker's answer {message.data[:60]!r}")
            return
        connection = self.connection

        def arrive() -> None:
            if connection == self.connection and self.process.alive:
                reply(message)

        self.loop.call_later(self.latency(), arrive)

    def _republished(self, message: Message) -> None:
        if not (self.is_connected and self.process.alive):
            return
        for prefix, callback in self._listeners:
            if message.subject.startswith(prefix) and self._rng.random() >= self.broker.faults.lost_reply:
                self.loop.call_later(self.latency(), self.call_back, callback, message)

    def call_back(self, callback: Callback, message: Message) -> None:
        """Hands a message to whoever listens, unless the process is gone."""
        if self.process.alive:
            self.process.start(callback(message))

    async def crash_point(self, name: str) -> None:
        """A place at which the process may die."""
        if self._rng.random() < self.broker.faults.crash:
            await self._die(name)

    async def _die(self, where: str) -> None:
        if OWNER.get() is self.process:
            self._crash(where)
            await self.loop.create_future()  # the cancellation arrives here

    def _crash(self, where: str) -> None:
        self.broker.note(f"{self.process.name}: killed {where}")
        self._on_crash(self.process)


def _shown(message: Message) -> str:
    subject = message.subject
    return f"{subject.split('.')[3]} {message.data[:4].decode()}" if subject.startswith("$JS.ACK.") else subject
