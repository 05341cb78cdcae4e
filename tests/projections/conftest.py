"""A broker and a database that the tests of a process share; each test has a database, and so a view, of its own."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr

from octollm.events import bus
from octollm.events.config import NatsSettings, PostgresSettings
from octollm.events.log import Log
from octollm.projections.app import create_app
from octollm.projections.database import readers
from octollm.projections.progress import Progress
from octollm.projections.projector import Projector, end
from octollm.projections.proxy import Reflex
from octollm.projections.queries import Queries
from octollm.projections.routes import View
from octollm.projections.settings import ProjectionsSettings
from octollm.projections.stream import EventStream
from octollm.stack import Stack, StackOptions
from tests.servers import given


@dataclass(frozen=True)
class Servers:
    """Where the broker and the database server are."""

    nats: NatsSettings
    postgres_url: str = field(repr=False)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[PostgresSettings]:
        """A new, empty database, dropped at the end."""
        name = f"test_{uuid.uuid4().hex}"
        server = await asyncpg.connect(self.postgres_url)
        try:
            await server.execute(f"CREATE DATABASE {name}")
            parts = urlsplit(self.postgres_url)
            yield PostgresSettings(url=SecretStr(parts._replace(path=f"/{name}").geturl()))
            await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await server.close()


@asynccontextmanager
async def running_stack(**options: Any) -> AsyncIterator[tuple[Stack, Servers]]:
    """An ephemeral broker and database."""
    chosen = StackOptions(
        ephemeral=True,
        ports="free",
        accounts=False,
        fsync=False,
        servers=frozenset({"nats", "postgres"}),
        services=(),
        **options,
    )
    async with Stack(chosen) as stack:
        yield stack, Servers(NatsSettings(url=stack.nats_url), stack.postgres_url)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers() -> AsyncIterator[Servers]:
    with given("nats", "postgres") as urls:
        async with running_stack(nats_url=urls.get("nats"), postgres_url=urls.get("postgres")) as (_, found):
            yield found


@pytest_asyncio.fixture
async def postgres(servers: Servers) -> AsyncIterator[PostgresSettings]:
    async with servers.database() as settings:
        yield settings


@pytest_asyncio.fixture
async def client(servers: Servers) -> AsyncIterator[bus.Client]:
    """A connection to the shared broker."""
    connection = await bus.connect(servers.nats, "test", 10)
    yield connection
    await connection.close()


@pytest.fixture
def log(client: bus.Client) -> Log:
    return Log(client, "test")


async def eventually(condition: Callable[[], Any | Awaitable[Any]], seconds: float = 20.0) -> Any:
    """The condition's first true value; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@dataclass
class Running:
    """A projector at work."""

    progress: Progress
    stream: EventStream

    async def reach(self, seq: int, seconds: float = 20.0) -> None:
        assert await self.progress.reach(seq, seconds), f"stands at {self.progress.seq}: {self.progress.trouble}"


@asynccontextmanager
async def projecting(nats: NatsSettings, postgres: PostgresSettings) -> AsyncIterator[Running]:
    """A projector of its own connections, cancelled at the end."""
    progress, stream = Progress(), EventStream(nats)
    work = asyncio.create_task(Projector(postgres, stream, progress).run())
    try:
        yield Running(progress, stream)
    finally:
        await end(work)
        await stream.close()


@pytest_asyncio.fixture
async def projector(servers: Servers, postgres: PostgresSettings) -> AsyncIterator[Running]:
    async with projecting(servers.nats, postgres) as running:
        yield running


@dataclass
class Rest:
    """The REST view in this process, and what it stands on."""

    http: httpx.AsyncClient
    app: FastAPI
    running: Running


@asynccontextmanager
async def serving(
    running: Running, postgres: PostgresSettings, reflex_url: str = "http://127.0.0.1:9", **more: Any
) -> AsyncIterator[Rest]:
    settings = ProjectionsSettings(reflex_url=reflex_url, **more)
    pool = await readers(postgres, settings)
    reflex = Reflex(settings.reflex_url, settings.reflex_timeout_seconds)
    queries = Queries(pool, settings.query_timeout_seconds)
    app = create_app(View(queries=queries, progress=running.progress, stream=running.stream, reflex=reflex))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://view") as http:
        yield Rest(http, app, running)
    await reflex.close()
    await pool.close()


@pytest_asyncio.fixture
async def bare() -> AsyncIterator[Rest]:
    """The REST view with nothing behind it: for what is answered without a look at the log or the tables."""
    nowhere = "127.0.0.1:9"
    running = Running(Progress(), EventStream(NatsSettings(url=f"nats://{nowhere}")))
    async with serving(running, PostgresSettings(url=SecretStr(f"postgresql://{nowhere}/none"))) as found:
        yield found


@pytest_asyncio.fixture
async def rest(projector: Running, postgres: PostgresSettings) -> AsyncIterator[Rest]:
    await eventually(lambda: projector.progress.trouble is None)
    async with serving(projector, postgres) as found:
        yield found
