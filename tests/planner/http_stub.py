"""A small HTTP server on a free port that answers by script, and misbehaves where the script says so."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    after_s, after: what it waits for before it answers. cut: closes the connection after so many bytes of the answer.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    after: asyncio.Event | None = None
    cut: int | None = None


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    path: str
    headers: dict[str, str]
    body: Any


Answering = Callable[[Request], Reply]


class HttpStub:
    """Replies in the order of `script`, then by `otherwise`; keeps what it was asked in `requests`."""

    def __init__(self, otherwise: Answering) -> None:
        self.script: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.otherwise = otherwise
        self.url = ""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "HttpStub":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            while request := await _read(reader):
                self.requests.append(request)
                reply = self.script.popleft() if self.script else self.otherwise(request)
                await asyncio.sleep(reply.after_s)
                if reply.after is not None:
                    await reply.after.wait()
                answer = _written(reply)
                writer.write(answer if reply.cut is None else answer[: reply.cut])
                await writer.drain()
                if reply.cut is not None:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(head[0].split(" ")[1], headers, json.loads(body) if body else None)


def _written(reply: Reply) -> bytes:
    plain = isinstance(reply.body, str)
    body = reply.body.encode() if plain else json.dumps(reply.body).encode()
    headers = {"content-type": "text/html" if plain else "application/json", "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {reply.status} -"] + [f"{name}: {value}" for name, value in (headers | reply.headers).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
