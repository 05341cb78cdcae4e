"""Continuous pull: one inbox per connection, requests renewed before they run dry, heartbeats watched."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from octollm.events import bus
from octollm.events.envelope import broker_time
from octollm.events.inbox import Inbox

_log = structlog.get_logger()
_EXPIRES_S = 30.0
_HEARTBEAT_S = 2.0
_SILENCE_S = 5.0
"""Says that a request or its consumer is lost: two heartbeats and some."""

_RETRY_S = 0.25
_DELETED = "Consumer Deleted"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A message from a pull. `delivered` counts its deliveries from 1."""

    subject: str
    headers: dict[str, str]
    data: bytes
    reply: str
    seq: int
    delivered: int
    stored_at: datetime


class Pull:
    """Messages of one durable consumer, without end. Iterate once; `close` ends the iteration.

    One inbox per connection. Behind an account the broker goes on serving requests made over a connection that is lost,
    as long as somebody listens where they were to be answered, and yet no answer comes through: a message that is sent
    there waits for its ack_wait. So the inbox is left before the connection is made anew, and never while it lasts.

    `leave`: for how many messages the broker may be asked at the moment; what it was asked for before still comes.
    """

    def __init__(
        self, client: Client, stream: str, consumer: str, batch: int, leave: Callable[[], int] | None = None
    ) -> None:
        self._client = client
        self._stream = stream
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._leave = leave or (lambda: batch)
        self._inbox = Inbox(client)
        self._asked = 0
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Ends the iteration at once; messages not yet yielded go back to the broker, for the next reader."""
        self._closed.set()
        self._inbox.wake()

    async def __aiter__(self) -> AsyncIterator[Pulled]:
        """Outlasts whatever happens to the broker; raises ConnectionClosedError when the client itself was closed."""
        async with self._inbox:
            try:
                with bus.watched(self._client, bus.Watcher(lost=self._lost, made=self._inbox.wake)):
                    while not self._closed.is_set():
                        message = await self._next()
                        if message is not None:
                            yield message
            finally:
                await self._give_back()

    async def _next(self) -> Pulled | None:
        """The next message; None for anything else that happened."""
        leave = self._leave()
        if self._asked <= leave // 2 and self._asked < leave and self._client.is_connected:
            await self._ask(leave - self._asked)
        message = self._inbox.take()
        if message is None:
            await self._listen()
            return None
        match _status(message):
            case None:
                self._asked = max(0, self._asked - 1)
                return _pulled(message)
            case "100":
                return None
            case status:
                await self._ended(status, message.headers or {})
                return None

    async def _ask(self, count: int) -> None:
        request = {"batch": count, "expires": int(_EXPIRES_S * 1e9), "idle_heartbeat": int(_HEARTBEAT_S * 1e9)}
        self._asked += count
        # Who was busy for a while has heard nothing of a request that was never made: silence counts from here on.
        self._inbox.heard = asyncio.get_running_loop().time()
        await self._client.publish(self._request, json.dumps(request).encode(), reply=self._inbox.subject)

    async def _lost(self) -> None:
        self._asked = 0
        await self._inbox.renew()

    async def _listen(self) -> None:
        now = asyncio.get_running_loop().time
        if not self._asked:  # no leave to ask, or nobody there
            await self._inbox.wait(now() + _RETRY_S)
            return
        await self._inbox.wait(self._inbox.heard + _SILENCE_S)
        if now() >= self._inbox.heard + _SILENCE_S:
            _log.warning("no word of the broker; asking again", stream=self._stream, seconds=_SILENCE_S)
            self._asked = 0

    async def _ended(self, status: str, headers: dict[str, str]) -> None:
        """A request has ended: what it still had to give is asked for anew."""
        reason = headers.get("Description", "")
        if unserved := headers.get("Nats-Pending-Messages"):
            self._asked = max(0, self._asked - int(unserved))
            if reason == _DELETED:
                bus.missed(self._client)
            return
        # Refused, or nobody is there: it would be refused again at once.
        _log.warning("pull refused; trying again", stream=self._stream, status=status, reason=reason)
        bus.missed(self._client)
        self._asked = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S):
                await self._closed.wait()

    async def _give_back(self) -> None:
        if self._client.is_closed:
            return
        if self._client.is_connected:
            await self._inbox.drain()
        while message := self._inbox.take():
            if _status(message) is None:
                await self._client.publish(message.reply, b"-NAK")


def _status(message: Msg) -> str | None:
    """What the broker says of a request; None for a message of the stream, which alone can be answered."""
    return None if message.reply else (message.headers or {}).get("Status", "")


def _pulled(message: Msg) -> Pulled:
    """Reads `$JS.ACK[.domain.hash].stream.consumer.delivered.seq.consumer_seq.time.pending[.random]`."""
    tokens = message.reply.split(".")
    tokens = tokens[2:] if len(tokens) == 9 else tokens[4:]
    return Pulled(
        subject=message.subject,
        headers=message.headers or {},
        data=message.data,
        reply=message.reply,
        delivered=int(tokens[2]),
        seq=int(tokens[3]),
        stored_at=broker_time(int(tokens[5])),
    )
