"""A door in front of a server: while it is shut, connections are refused and those there were are cut."""

import asyncio
from urllib.parse import urlsplit


class Gate:
    """A TCP forwarder on a port of its own, open at first."""

    def __init__(self, target_url: str) -> None:
        self._target = urlsplit(target_url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The target's URL with the gate's address."""
        user = f"{self._target.username}:{self._target.password}@" if self._target.username else ""
        return self._target._replace(netloc=f"{user}127.0.0.1:{self._port}").geturl()

    async def open(self) -> None:
        """On the port that it had before, if any."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Cuts every connection."""
        assert self._server
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname
        assert self._target.port
        upstream, downstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, downstream}
        for source, sink in ((reader, downstream), (upstream, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        except OSError:
            return
        finally:
            sink.close()
