"""A broker whose answers can be dropped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest_asyncio


class LossyProxy:
    """A TCP proxy in front of a broker: while `lose` says so of what the broker sends, it is dropped."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.lose: Callable[[bytes], bool] = lambda _: False
        self.dropped = 0
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname
        assert self._target.port
        upstream, downstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        for pair in ((reader, downstream, False), (upstream, writer, True)):
            pump = asyncio.create_task(self._pump(*pair))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, from_broker: bool) -> None:
        try:
            while data := await source.read(65536):
                if from_broker and self.lose(data):
                    self.dropped += 1
                    continue
                sink.write(data)
                await sink.drain()
        except (ConnectionError, RuntimeError):
            pass
        finally:
            sink.close()


@pytest_asyncio.fixture
async def lossy(nats_url: str) -> AsyncIterator[tuple[LossyProxy, str]]:
    """The proxy and the URL to connect to."""
    proxy = LossyProxy(nats_url)
    yield proxy, await proxy.start()
    await proxy.stop()
