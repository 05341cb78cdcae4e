"""A proxy in front of a broker that loses what the broker says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

ACK = b'"stream":"EVENTS"'
"""What only an answer of the log to a publish holds."""


class LossyProxy:
    """Passes on whole messages; what `lose` says yes to is lost, with its connection where it `cuts`.

    Of a cluster its clients see one server only, so that they come back to this proxy.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.lose: Callable[[bytes], bool] = lambda _: False
        self.cuts = False
        self.dropped = 0
        self.acks: list[dict[str, Any]] = []
        """What the log has answered to publishes, lost or not."""
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """The URL to connect to."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def lose_stored(self, every: int, count: int, *, cuts: bool = False) -> None:
        """From now on one in `every` answers that say `stored` is lost, `count` in all."""
        seen, last = 0, self.dropped + count

        def lose(message: bytes) -> bool:
            nonlocal seen
            if ACK not in message or b'"error"' in message or b'"duplicate"' in message or self.dropped == last:
                return False
            seen += 1
            return seen % every == 0

        self.lose, self.cuts = lose, cuts

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname
        try:
            upstream, downstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        for messages, sink in ((_chunks(reader), downstream), (self._kept(upstream), writer)):
            pump = asyncio.create_task(_pump(messages, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _kept(self, broker: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """What the broker says, but for what is lost."""
        while message := await _message(broker):
            if ACK in message:
                self.acks.append(json.loads(message[message.index(b"{") :]))
            if not self.lose(message):
                yield message
                continue
            self.dropped += 1
            if self.cuts:
                return


async def _chunks(client: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await client.read(65536):
        yield data


async def _pump(messages: AsyncIterator[bytes], sink: asyncio.StreamWriter) -> None:
    """Until one side is gone; the other is told so."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        try:
            async for message in messages:
                sink.write(message)
                await sink.drain()
        finally:
            sink.close()


async def _message(broker: asyncio.StreamReader) -> bytes:
    """The next message of the broker, payload included; empty at the end."""
    line = await broker.readline()
    if line.startswith((b"MSG ", b"HMSG ")):
        return line + await broker.readexactly(int(line.split()[-1]) + 2)
    if line.startswith(b"INFO "):
        info = json.loads(line[5:])
        info.pop("connect_urls", None)
        return b"INFO " + json.dumps(info).encode() + b"\r\n"
    return line
