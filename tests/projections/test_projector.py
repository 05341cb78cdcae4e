"""The projector against a real broker and a real database."""

import asyncio
import hashlib
import json

import asyncpg
import pytest

from octollm.events import bus
from octollm.events.config import PostgresSettings
from octollm.events.direct import Stored
from octollm.events.log import Log
from octollm.projections import tables
from octollm.projections.database import connect
from octollm.projections.migration import migrate
from octollm.projections.projector import ProjectorActive, apply_batch, rebuild
from octollm.projections.stream import EventStream
from tests.projections import story
from tests.projections.conftest import Running, Servers, eventually, projecting
from tests.projections.story import Told

TABLES = {
    "checkpoint": "only_row",
    "tasks": "task_id",
    "plans": "task_id, plan_version",
    "attempts": "task_id, plan_version, step_id, attempt",
    "events": "seq",
}


async def digests(postgres: PostgresSettings) -> dict[str, str]:
    """SHA-256 of each table's every byte, in the order of its key."""
    connection = await connect(postgres, 30)
    try:
        found = {}
        for table, key in TABLES.items():
            digest = hashlib.sha256()

            async def feed(chunk: bytes, into: "hashlib._Hash" = digest) -> None:
                into.update(chunk)

            query = f"SELECT * FROM {table} ORDER BY {key}"
            await connection.copy_from_query(query, output=feed, format="text")
            found[table] = digest.hexdigest()
        return found
    finally:
        await connection.close()


async def rows(postgres: PostgresSettings, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await connect(postgres, 30)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def told(log: Log) -> dict[str, Told]:
    """Every story, told at once and so interleaved."""
    tasks = {name: Told(log) for name in story.STORIES}
    await asyncio.gather(*(tasks[name].tell(*payloads) for name, payloads in story.STORIES.items()))
    return tasks


async def test_the_tables_hold_what_was_told(log: Log, projector: Running, postgres: PostgresSettings) -> None:
    tasks = await told(log)
    await projector.reach(await log.last_seq())
    for name, task in tasks.items():
        (row,) = await rows(postgres, "SELECT * FROM tasks WHERE task_id = $1", task.task_id)
        assert (row["version"], row["last_seq"]) == (len(story.STORIES[name]), task.position.seq)
        assert row["undecodable"] == 0
        events = await rows(postgres, "SELECT * FROM events WHERE task_id = $1 ORDER BY seq", task.task_id)
        stored = await log.read(task.task_id)
        assert [event["hash"] for event in events] == [event.hash for event in stored]
        assert [event["payload"] for event in events] == [event.body.decode() for event in stored]
        assert row["created_at"] == stored[0].stored_at
        assert row["updated_at"] == stored[-1].stored_at
    attempts = await rows(
        postgres,
        "SELECT step_id, attempt, status, exit_code, code, arm FROM attempts WHERE task_id = $1 ORDER BY seq",
        tasks["completed"].task_id,
    )
    assert [tuple(attempt) for attempt in attempts] == [
        ("one", 1, "executed", 0, None, "executor"),
        ("two", 1, "failed", None, "TIMEOUT", "executor"),
        ("two", 2, "executed", 0, None, "executor"),
    ]
    (fill,) = await rows(postgres, "SELECT * FROM attempts WHERE task_id = $1", tasks["cancelled"].task_id)
    assert (fill["status"], fill["arm"]) == ("abandoned", "executor")
    (plan,) = await rows(postgres, "SELECT * FROM plans WHERE task_id = $1", tasks["completed"].task_id)
    assert [step["id"] for step in json.loads(plan["steps"])] == ["one", "two"]


async def test_a_restart_goes_on_where_it_stopped(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    task = Told(log)
    async with projecting(servers.nats, postgres) as running:
        await running.reach(await task.tell(*story.COMPLETED[:4]))
    end = await task.tell(*story.COMPLETED[4:])
    async with projecting(servers.nats, postgres) as running:
        await running.reach(end)
    (row,) = await rows(postgres, "SELECT * FROM tasks WHERE task_id = $1", task.task_id)
    assert (row["status"], row["version"], row["steps_done"]) == ("completed", 9, 2)
    (count,) = await rows(postgres, "SELECT count(*) FROM events WHERE task_id = $1", task.task_id)
    assert count[0] == 9


async def test_rows_and_checkpoint_move_together_or_not_at_all(
    log: Log, servers: Servers, postgres: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The projector dies at the last moment before the commit: the next one finds neither rows nor checkpoint moved."""
    task = Told(log)
    start = await log.last_seq()
    async with projecting(servers.nats, postgres) as running:
        await running.reach(start)
    end = await task.tell(*story.COMPLETED)
    about_to_commit = asyncio.Event()
    write = tables.write

    async def die_after_writing(*arguments: object) -> None:
        await write(*arguments)  # type: ignore[arg-type]
        about_to_commit.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(tables, "write", die_after_writing)
        async with projecting(servers.nats, postgres):
            await asyncio.wait_for(about_to_commit.wait(), 20)
    assert await rows(postgres, "SELECT 1 FROM tasks WHERE task_id = $1", task.task_id) == []
    assert (await rows(postgres, "SELECT last_seq FROM checkpoint"))[0][0] == start
    async with projecting(servers.nats, postgres) as running:
        await running.reach(end)
    (row,) = await rows(postgres, "SELECT status, steps_done FROM tasks WHERE task_id = $1", task.task_id)
    assert tuple(row) == ("completed", 2)


async def test_a_rebuild_equals_the_live_tables(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    await told(log)
    client = await bus.connect(servers.nats, "test", 10)
    await client.request("step.executed.7d9f5f2e-0000-4000-8000-000000000001", b"not json")
    await client.close()
    async with projecting(servers.nats, postgres) as running:
        await running.reach(await log.last_seq() // 2)
        await told(log)
        await running.reach(await log.last_seq())
    live = await digests(postgres)
    stream = EventStream(servers.nats)
    assert await rebuild(postgres, stream) == await log.last_seq()
    await stream.close()
    assert await digests(postgres) == live


async def test_a_rebuild_keeps_off_while_a_projector_runs(
    log: Log, projector: Running, servers: Servers, postgres: PostgresSettings
) -> None:
    await projector.reach(await Told(log).tell(*story.REJECTED))
    before = await digests(postgres)
    with pytest.raises(ProjectorActive):
        await rebuild(postgres, projector.stream)
    assert await digests(postgres) == before


async def test_a_second_projector_waits_and_takes_over(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    task = Told(log)
    async with projecting(servers.nats, postgres) as second:
        async with projecting(servers.nats, postgres) as first:
            # Whichever holds the lock: both see what is projected.
            seq = await task.tell(*story.COMPLETED[:5])
            await first.reach(seq)
            await second.reach(seq)
            assert first.progress.trouble is None
            assert second.progress.trouble is None
        await second.reach(await task.tell(*story.COMPLETED[5:]))
    (row,) = await rows(postgres, "SELECT status, version, steps_done FROM tasks WHERE task_id = $1", task.task_id)
    assert tuple(row) == ("completed", 9, 2)


async def test_undecodable_events_stop_nobody(
    client: bus.Client, log: Log, projector: Running, postgres: PostgresSettings
) -> None:
    broken, good = Told(log), Told(log)
    await broken.tell(story.received())
    await client.request(f"step.executed.{broken.task_id}", b"\x00\xff no json")
    end = await good.tell(*story.COMPLETED)
    await projector.reach(end)
    found = await rows(
        postgres,
        "SELECT task_id, status, undecodable FROM tasks WHERE task_id = ANY($1)",
        [broken.task_id, good.task_id],
    )
    assert {row["task_id"]: (row["status"], row["undecodable"]) for row in found} == {
        broken.task_id: ("pending", 1),
        good.task_id: ("completed", 0),
    }
    (event,) = await rows(
        postgres, "SELECT raw, undecodable FROM events WHERE undecodable IS NOT NULL AND task_id = $1", broken.task_id
    )
    assert event["raw"] == b"\x00\xff no json"


async def test_values_that_no_table_holds_stop_nobody(log: Log, projector: Running, postgres: PostgresSettings) -> None:
    """Legal in the contract, too large for a column; and U+0000, which neither TEXT nor JSONB takes."""
    rich, odd = Told(log), Told(log)
    await rich.tell(story.received(), story.planned("one", cost_micro_usd=10**30))
    end = await odd.tell(
        story.received(goal="a\0b", metadata={"k": "\0"}),
        story.planned("one"),
        story.dispatched("one"),
        story.executed("one", stdout="\0\0"),
        story.completed(output="\0"),
    )
    await projector.reach(end)
    found = await rows(
        postgres,
        "SELECT task_id, status, undecodable FROM tasks WHERE task_id = ANY($1)",
        [rich.task_id, odd.task_id],
    )
    assert {row["task_id"]: (row["status"], row["undecodable"]) for row in found} == {
        rich.task_id: ("pending", 1),
        odd.task_id: ("completed", 0),
    }
    (attempt,) = await rows(postgres, "SELECT output FROM attempts WHERE task_id = $1", odd.task_id)
    assert json.loads(attempt["output"])["stdout"]["head"] == "\0\0"


async def test_messages_up_to_the_checkpoint_are_passed_over(postgres: PostgresSettings, servers: Servers) -> None:
    stream = EventStream(servers.nats)
    await stream.connect()
    delivered = story.messages(*story.events("3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21", *story.COMPLETED))
    connection = await connect(postgres, 30)
    try:
        await migrate(connection)
        await tables.begin(connection, await stream.state())
        assert await apply_batch(connection, 0, delivered) == 9
        once = await digests(postgres)
        assert await apply_batch(connection, 9, delivered) == 9
        assert await apply_batch(connection, 9, delivered[4:]) == 9
        assert await digests(postgres) == once
        with pytest.raises(tables.CheckpointMoved):
            await apply_batch(connection, 3, delivered)
        assert await digests(postgres) == once
    finally:
        await connection.close()
        await stream.close()


async def test_one_message_at_a_time_gives_the_same_bytes(servers: Servers, log: Log) -> None:
    """However the log is cut into transactions, the tables are the same."""
    await told(log)
    end = await log.last_seq()
    stream = EventStream(servers.nats)
    await stream.connect()
    delivered: list[Stored] = []
    async for message in stream.messages(1):
        delivered.append(message)
        if message.seq == end:
            break
    found = []
    for size in (1, 7, len(delivered)):
        async with servers.database() as postgres:
            connection = await connect(postgres, 30)
            await migrate(connection)
            await tables.begin(connection, await stream.state())
            checkpoint = 0
            for start in range(0, len(delivered), size):
                checkpoint = await apply_batch(connection, checkpoint, delivered[start : start + size])
            await connection.close()
            found.append(await digests(postgres))
    await stream.close()
    assert found[0] == found[1] == found[2]


async def test_a_killed_connection_is_made_anew(log: Log, projector: Running, postgres: PostgresSettings) -> None:
    await projector.reach(await Told(log).tell(*story.REJECTED))
    (lock,) = await rows(
        postgres,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    await rows(postgres, "SELECT pg_terminate_backend($1)", lock["pid"])
    await eventually(lambda: projector.progress.trouble is not None)
    await eventually(lambda: projector.progress.trouble is None)
    task = Told(log)
    await projector.reach(await task.tell(*story.COMPLETED))
    (row,) = await rows(postgres, "SELECT status FROM tasks WHERE task_id = $1", task.task_id)
    assert row["status"] == "completed"
