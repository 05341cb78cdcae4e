"""Durable consumers: at-least-once deliveries that a service answers for."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
from nats.aio.client import Client

from octollm.events.envelope import Event
from octollm.events.pull import Pull, Pulled


class Delivery:
    """One delivery. Answer it exactly once with ack, nak or term; `in_progress` buys another ack_wait."""

    def __init__(self, client: Client, message: Pulled) -> None:
        self._client = client
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
        """1 for the first delivery."""
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

    async def ack(self) -> None:
        """Done: never deliver it again. A lost ack only means one more delivery."""
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """Deliver it again after a delay in seconds."""
        await self._answer(b"-NAK " + msgspec.json.encode({"delay": int(delay_s * 1e9)}))

    async def in_progress(self) -> None:
        """Still at work: ack_wait starts anew."""
        await self._answer(b"+WPI")

    async def term(self) -> None:
        """Never deliver it again, though nothing was done."""
        await self._answer(b"+TERM")

    async def _answer(self, word: bytes) -> None:
        await self._client.publish(self._message.reply, word)


class Consumer:
    """A durable pull consumer of streams.json. Iterate once; `close` ends the iteration."""

    def __init__(self, client: Client, stream: str, durable: str, batch: int = 64) -> None:
        self._client = client
        self._pull = Pull(client, stream, durable, batch)

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for message in self._pull:
            yield Delivery(self._client, message)

    async def close(self) -> None:
        """Takes no further deliveries."""
        await self._pull.close()
