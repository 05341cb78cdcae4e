"""Readiness, asked in each server's own protocol. Every probe returns when it is answered well and raises otherwise."""

import asyncio
import ssl
from urllib.parse import unquote, urlsplit

from octollm.stack.errors import StackError

ANSWER_BYTES = 1024 * 1024


async def http_get(url: str) -> tuple[int, bytes]:
    """Status and body (at most 1 MiB) of a GET over HTTP/1.0, which asks for no chunks and one answer a connection.

    A client library would take longer to import than the servers take to start.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode("ascii"))
        await writer.drain()
        answer = await reader.read(ANSWER_BYTES)
        while chunk := await reader.read(ANSWER_BYTES - len(answer)):
            answer += chunk
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise StackError(f"{url} doesn't speak HTTP")
    return int(words[1]), body


async def http_ready(url: str) -> None:
    """200 from ``url``; the error otherwise quotes the answer, which names the dependency that is down."""
    status, body = await http_get(url)
    if status != 200:
        raise StackError(f"{url} answers {status} {body[:300].decode('utf-8', 'replace')}".rstrip())


async def nats_ready(url: str) -> None:
    """A client can connect to NATS and is answered."""
    import nats
    from nats.errors import NoServersError

    refusals: list[Exception] = []

    async def note(error: Exception) -> None:
        refusals.append(error)

    try:
        connection = await nats.connect(
            url,
            error_cb=note,
            connect_timeout=2,
            allow_reconnect=False,
            # Without these two the client tries for two minutes before it says that nobody is there.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.05,
        )
    except NoServersError:
        raise StackError(str(refusals[-1]) if refusals else "no answer") from None
    try:
        await connection.flush(2)
    finally:
        await connection.close()


async def postgres_ready(url: str) -> None:
    """Postgres answers a query."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=2)
    try:
        await connection.fetchval("SELECT 1")
    finally:
        await connection.close(timeout=2)


async def redis_ready(url: str) -> None:
    """A server of the Redis protocol answers PING (RESP2 inline commands, so that no client need be imported)."""
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "rediss" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 6379, ssl=secure)
    try:
        if parts.password:
            words = [unquote(word) for word in ("AUTH", parts.username or "default", parts.password)]
            bulk = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            writer.write(f"*{len(words)}\r\n{bulk}".encode())
            await _simple(reader, b"+OK", "AUTH")
        writer.write(b"PING\r\n")
        await _simple(reader, b"+PONG", "PING")
    finally:
        writer.close()


async def _simple(reader: asyncio.StreamReader, expected: bytes, command: str) -> None:
    line = (await reader.readline()).strip()
    if line != expected:
        raise StackError(f"{command} is answered {line[:200].decode('utf-8', 'replace') or 'by a closed connection'}")
