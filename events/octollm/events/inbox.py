"""A subject of one's own, and what has arrived on it: answers that come in parts, or without end."""

import asyncio
import contextlib
from collections import deque
from typing import Any, Self

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

_DRAIN_S = 1.0


class Inbox:
    """Messages in the order of their arrival; listens while it is entered.

    subject: where to send them. heard: when the latest came, or when listening began, by the loop's time.
    """

    def __init__(self, client: Client) -> None:
        self.subject = ""
        self.heard = 0.0
        self._client = client
        self._arrived: deque[Msg] = deque()
        self._news = asyncio.Event()
        self._subscription: Any = None

    async def __aenter__(self) -> Self:
        self.subject = self._client.new_inbox()
        self.heard = asyncio.get_running_loop().time()
        self._subscription = await self._client.subscribe(
            self.subject, cb=self._arrive, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            await subscription.unsubscribe()

    async def renew(self) -> None:
        """Listens on another subject from now on; what has arrived is kept."""
        await self.__aexit__()
        await self.__aenter__()

    async def drain(self) -> None:
        """Stops listening, once all that the broker has sent until then is here."""
        subscription, self._subscription = self._subscription, None
        with contextlib.suppress(nats_errors.Error, TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await subscription.drain()

    def take(self) -> Msg | None:
        """The next message, None where there is none yet."""
        return self._arrived.popleft() if self._arrived else None

    async def wait(self, until: float) -> None:
        """Until something has happened since the last wait, an arrival or `wake`, or it is `until` (the loop's time).

        May return without a reason.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()
        self._news.clear()

    def wake(self) -> None:
        """Ends the wait."""
        self._news.set()

    async def _arrive(self, message: Msg) -> None:
        self.heard = asyncio.get_running_loop().time()
        self._arrived.append(message)
        self._news.set()
