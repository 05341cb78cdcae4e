"""Continuous pull: one subscription, requests renewed before they run dry, heartbeats watched."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from octollm.events.envelope import broker_time

_log = structlog.get_logger()
_EXPIRES_S = 30.0
_HEARTBEAT_S = 2.0
_CONSUMER_GONE = ("Consumer Deleted", "No Responders", "Consumer is push based", "Leadership Change")


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
    """Messages of one durable consumer, without end. Iterate once; `close` ends the iteration."""

    def __init__(self, client: Client, stream: str, consumer: str, batch: int) -> None:
        self._client = client
        self._stream = stream
        self._consumer = consumer
        self._batch = batch
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Ends the iteration; messages not yet yielded are delivered again to the next reader of a durable."""
        self._closed.set()

    async def __aiter__(self) -> AsyncIterator[Pulled]:
        while not self._closed.is_set():
            try:
                async for message in self._session():
                    yield message
            except (nats_errors.Error, TimeoutError, OSError) as error:
                _log.warning("pull interrupted; trying again", stream=self._stream, error=type(error).__name__)
                await self._pause(0.25)

    async def _session(self) -> AsyncIterator[Pulled]:
        """Messages until the consumer or the connection is lost."""
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        asked = 0
        reconnects = self._client.stats["reconnects"]
        silent_since = asyncio.get_running_loop().time()
        try:
            while not self._closed.is_set():
                if asked <= self._batch // 2:
                    await self._request(inbox, self._batch - asked)
                    asked = self._batch
                message = await self._next(subscription)
                now = asyncio.get_running_loop().time()
                if message is None:
                    if self._client.stats["reconnects"] != reconnects or now - silent_since > 2.5 * _HEARTBEAT_S:
                        raise TimeoutError("no heartbeat")
                    continue
                silent_since = now
                status = (message.headers or {}).get("Status")
                if status is None:
                    asked -= 1
                    yield _pulled(message)
                    silent_since = asyncio.get_running_loop().time()
                elif status != "100":
                    description = (message.headers or {}).get("Description", "")
                    if status == "503" or any(word in description for word in _CONSUMER_GONE):
                        raise TimeoutError(description or "the consumer is gone")
                    # The request has ended (408, 409): what it still had to give is asked for anew.
                    asked -= int((message.headers or {}).get("Nats-Pending-Messages", asked))
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _next(self, subscription: Any) -> Msg | None:
        """The next message, or None after a second of silence or on close."""
        try:
            message: Msg = await subscription.next_msg(timeout=1.0)
        except nats_errors.TimeoutError:
            return None
        # Before Python 3.12 asyncio.wait_for, which is in there, swallows a cancellation that comes with the message.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
        return message

    async def _request(self, inbox: str, count: int) -> None:
        request = {
            "batch": count,
            "expires": int(_EXPIRES_S * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_S * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return


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
