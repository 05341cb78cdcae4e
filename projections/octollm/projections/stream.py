"""The event stream as the projection sees it: which log it is, where it ends, and its messages in order."""

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events.bus import connect
from octollm.events.config import NatsSettings
from octollm.events.direct import DirectGetFailed, Stored, follow
from octollm.events.log import STREAM, LogUnavailable

_TIMEOUT_S = 2.0
_READ_BATCH = 256

_PACE_S = 0.02
"""The view may be this much behind: to read and write each event by itself costs as much as the saga does."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """`created`: the broker's text, which tells this log from another of its name. `last_seq`: 0 while it is empty."""

    created: str
    first_seq: int
    last_seq: int


class EventStream:
    """EVENTS on one broker. `connect` first: before that, and while the broker is away, it raises LogUnavailable."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._client: Client | None = None

    async def connect(self) -> None:
        """Waits for the broker as long as it takes."""
        if self._client is None:
            self._client = await connect(self._settings, "projections")

    @property
    def connected(self) -> bool:
        """The broker is there."""
        return self._client is not None and self._client.is_connected

    async def state(self) -> StreamState:
        """What the broker says of the stream now; raises LogUnavailable."""
        if self._client is None or not self._client.is_connected:
            raise LogUnavailable("the event log can't be asked: no connection to NATS")
        try:
            message = await self._client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout=_TIMEOUT_S)
        except (nats_errors.Error, TimeoutError) as error:
            raise LogUnavailable(f"the event log gave no answer within {_TIMEOUT_S:g} s") from error
        answer = json.loads(message.data)
        if refusal := answer.get("error"):
            raise LogUnavailable(f"the stream {STREAM} can't be read: {refusal['description']}")
        state = answer["state"]
        return StreamState(created=answer["created"], first_seq=state["first_seq"], last_seq=state["last_seq"])

    async def messages(self, start_seq: int) -> AsyncGenerator[Stored, None]:
        """Every message from `start_seq` on, in order, for ever, whether or not it is a valid event."""
        if self._client is None:
            raise LogUnavailable("the event log can't be read: no connection to NATS")
        messages = follow(self._client, STREAM, start_seq, (), _READ_BATCH, _PACE_S)
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    yield message
        except DirectGetFailed as error:
            raise LogUnavailable(str(error)) from error

    async def close(self) -> None:
        """Ends the connection."""
        if self._client is not None and not self._client.is_closed:
            await self._client.close()
