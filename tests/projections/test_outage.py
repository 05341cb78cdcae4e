"""The database away, the broker away, the log replaced by another."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from pydantic import SecretStr

from octollm.events import bus, streams
from octollm.events.config import NatsSettings, PostgresSettings
from octollm.events.log import Log
from octollm.projections.projector import StreamChanged, rebuild
from octollm.projections.stream import EventStream
from octollm.stack import Stack, StackOptions
from tests.projections import story
from tests.projections.conftest import Servers, eventually, projecting, serving
from tests.projections.gate import Gate
from tests.projections.story import Told
from tests.projections.test_projector import rows
from tests.projections.test_rest import TASKS, body


@asynccontextmanager
async def gated(url: str) -> AsyncIterator[Gate]:
    gate = Gate(url)
    await gate.open()
    yield gate
    await gate.shut()


async def test_the_database_comes_back(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    async with gated(postgres.url.get_secret_value()) as gate:
        through = PostgresSettings(url=SecretStr(gate.url))
        async with projecting(servers.nats, through) as running, serving(running, through) as rest:
            task = Told(log)
            await running.reach(await task.tell(*story.COMPLETED[:3]))
            await gate.shut()
            await eventually(lambda: running.progress.trouble)
            assert "database can't be used" in (running.progress.trouble or "")
            end = await task.tell(*story.COMPLETED[3:])
            answer = await rest.http.get(f"{TASKS}/{task.task_id}", params={"wait": 0})
            assert "try again" in body(answer, 503)["detail"]
            assert answer.headers["retry-after"] == "1"
            await gate.open()
            await running.reach(end)
            assert running.progress.trouble is None
            assert body(await rest.http.get(f"{TASKS}/{task.task_id}"))["status"] == "completed"


async def test_a_start_without_a_database_waits_for_it(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    async with gated(postgres.url.get_secret_value()) as gate:
        through = PostgresSettings(url=SecretStr(gate.url))
        await gate.shut()
        async with projecting(servers.nats, through) as running:
            await eventually(lambda: "database" in (running.progress.trouble or ""))
            await gate.open()
            await running.reach(await log.last_seq())
        await gate.shut()
        await gate.open()


async def test_the_broker_comes_back(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    async with (
        gated(servers.nats.url) as gate,
        projecting(NatsSettings(url=gate.url), postgres) as running,
        serving(running, postgres) as rest,
    ):
        task = Told(log)
        await running.reach(await task.tell(*story.COMPLETED[:3]))
        await gate.shut()
        await eventually(lambda: not running.stream.connected)
        end = await task.tell(*story.COMPLETED[3:])
        # What is in the view is still served; of what isn't, nothing can be said.
        assert body(await rest.http.get(f"{TASKS}/{task.task_id}"))["status"] == "in_progress"
        unknown = await rest.http.get(f"{TASKS}/{uuid.uuid4()}", params={"wait": 0.05})
        assert "can't be said" in body(unknown, 503)["detail"]
        await gate.open()
        await running.reach(end)
        assert body(await rest.http.get(f"{TASKS}/{task.task_id}"))["status"] == "completed"


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Stack]:
    """A broker of the test's own: its log may be replaced."""
    options = StackOptions(
        ephemeral=True, ports="free", accounts=False, fsync=False, servers=frozenset({"nats"}), services=()
    )
    async with Stack(options) as stack:
        yield stack


async def recreate(client: bus.Client) -> None:
    """The log is lost, and another made under its name."""
    await client.request("$JS.API.STREAM.DELETE.EVENTS", b"")
    await streams.ensure(client)


async def test_another_log_is_never_mixed_in(broker: Stack, servers: Servers, postgres: PostgresSettings) -> None:
    settings = NatsSettings(url=broker.nats_url)
    client = await bus.connect(settings, "test", 10)
    log = Log(client, "test")
    old, new = Told(log), Told(log)
    async with projecting(settings, postgres) as running, serving(running, postgres) as rest:
        await running.reach(await old.tell(*story.COMPLETED))
        await recreate(client)
        await new.tell(*story.CANCELLED)
        # Its sequence 5 is behind the view's 9: without a look at which log it is, this would be a 404.
        body(await rest.http.get(f"{TASKS}/{new.task_id}", params={"wait": 0.05}), 503)
        await eventually(lambda: running.progress.foreign)
        assert "was made anew" in (running.progress.trouble or "")
        for query in ({"min_seq": 1}, {}):
            answer = await rest.http.get(f"{TASKS}/{new.task_id}", params={"wait": 0.05, **query})
            assert "log" in body(answer, 503)["detail"]
        assert body(await rest.http.get(f"{TASKS}/{old.task_id}"))["status"] == "completed"
        more = Told(log)
        await more.tell(*story.COMPLETED)  # past the view's checkpoint
    assert [row["task_id"] for row in await rows(postgres, "SELECT task_id FROM tasks")] == [old.task_id]
    async with projecting(settings, postgres) as running:
        await eventually(lambda: running.progress.foreign)
        assert "--rebuild" in (running.progress.trouble or "")
    stream = EventStream(settings)
    await rebuild(postgres, stream)
    await stream.close()
    found = await rows(postgres, "SELECT task_id, status FROM tasks ORDER BY first_seq")
    assert [tuple(row) for row in found] == [(new.task_id, "cancelled"), (more.task_id, "completed")]
    async with projecting(settings, postgres) as running:
        await running.reach(await log.last_seq())
        assert not running.progress.foreign
    await client.close()


async def test_a_log_without_its_beginning_is_refused(broker: Stack, postgres: PostgresSettings) -> None:
    settings = NatsSettings(url=broker.nats_url)
    client = await bus.connect(settings, "test", 10)
    log = Log(client, "test")
    config = {**streams.definitions()["streams"][1], "deny_purge": False}
    assert config["name"] == "EVENTS"
    await client.request("$JS.API.STREAM.DELETE.EVENTS", b"")
    await client.request("$JS.API.STREAM.CREATE.EVENTS", json.dumps(config).encode())
    await Told(log).tell(*story.COMPLETED)
    await client.request("$JS.API.STREAM.PURGE.EVENTS", b'{"seq": 4}')
    async with projecting(settings, postgres) as running:
        await eventually(lambda: running.progress.foreign)
        assert "begins at sequence 4" in (running.progress.trouble or "")
    stream = EventStream(settings)
    with pytest.raises(StreamChanged):
        await rebuild(postgres, stream)
    await stream.close()
    assert await rows(postgres, "SELECT 1 FROM events") == []
    await client.close()
