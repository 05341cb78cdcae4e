"""The three servers: they answer, keep what they are told to keep, and hold what they promise about the disk."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import asyncpg
import nats as nats_client
import pytest
import redis.asyncio
from nats.js.api import StreamConfig

from octollm.stack import NotReady, Stack, StackError, StackOptions, nats, probe, procfs
from octollm.stack.postgres import binaries

CANARY = b"canary-7f3a1c-in-the-clear"


async def put(url: str, subject: str = "canary.a", body: bytes = CANARY) -> int:
    client = await nats_client.connect(url)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="CANARY", subjects=["canary.*"]))
    sequence = (await stream.publish(subject, body)).seq
    await client.close()
    return sequence


async def get(url: str, sequence: int) -> bytes | None:
    client = await nats_client.connect(url)
    message = await client.jetstream().get_msg("CANARY", sequence)
    await client.close()
    return message.data


def holding(directory: Path, text: bytes) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text in path.read_bytes()]


async def test_all_three_answer(stack_of: Any) -> None:
    async with stack_of() as stack:
        assert await get(stack.nats_url, await put(stack.nats_url)) == CANARY
        connection = await asyncpg.connect(stack.postgres_url)
        assert await connection.fetchval("SELECT current_setting('server_version_num')::int >= 180000")
        await connection.close()
        client = redis.asyncio.from_url(stack.redis_url)
        assert await client.set("a", "1")
        assert await client.config_get("save") == {"save": ""}
        await client.aclose()
        assert {(p.name, p.state) for p in stack.processes()} == {
            ("nats", "ready"),
            ("postgres", "ready"),
            ("valkey", "ready"),
        }


async def test_passwords_are_asked_for(stack_of: Any) -> None:
    async with stack_of(servers={"postgres", "valkey"}) as stack:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stack.postgres_url, password="wrong")
        open_url = stack.redis_url.replace(stack.redis_url.split("@")[0] + "@", "redis://")
        with pytest.raises(StackError, match="NOAUTH"):
            await probe.redis_ready(open_url)


@pytest.mark.parametrize("fsync", [True, False])
async def test_fsync_is_what_was_asked_for(stack_of: Any, fsync: bool) -> None:
    async with stack_of(fsync=fsync) as stack:
        config = (stack.data_dir / "nats" / "server.conf").read_text()
        monitor = next(line.split('"')[1] for line in config.splitlines() if line.startswith("http:"))
        _, body = await probe.http_get(f"http://{monitor}/jsz?config=1")
        assert json.loads(body)["config"].get("sync_always", False) is fsync
        connection = await asyncpg.connect(stack.postgres_url)
        assert await connection.fetchval("SHOW fsync") == ("on" if fsync else "off")
        await connection.close()


async def test_a_server_that_isnt_as_it_must_be_is_refused_at_once(
    stack_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "CONFIG", nats.CONFIG.replace("{sync}", ""))
    with pytest.raises(NotReady, match=r"nats won't do: .*sync_always"):
        await stack_of(servers={"nats"}).start()
    monkeypatch.undo()
    monkeypatch.setattr(nats, "OLDEST", (3, 0))
    with pytest.raises(NotReady, match=r"nats-server \d+\.\d+\.\d+ is too old: 3\.0"):
        await stack_of(servers={"nats"}).start()


async def test_the_log_is_encrypted_at_rest(stack_of: Any) -> None:
    async with stack_of(servers={"nats"}) as stack:
        await put(stack.nats_url)
        store = stack.data_dir / "nats"
        assert holding(store, b"") != []
        assert holding(store, CANARY) == []
        key = (stack.data_dir / "keys" / "nats.key").read_text()
        assert holding(store, key.encode()) == []
        assert key not in procfs.command(stack.processes()[0].pid, limit=100_000)


async def test_secrets_are_private(stack_of: Any) -> None:
    async with stack_of() as stack:
        secrets = [path.read_bytes() for path in (stack.data_dir / "keys").iterdir()]
        assert len(secrets) == 3
        for secret in secrets:
            for path in holding(stack.data_dir, secret):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
                assert "logs" not in path.parts
        assert stat.S_IMODE((stack.data_dir / "postgres").stat().st_mode) == 0o700
        for secret in secrets:
            assert secret.decode() not in repr(stack.processes())


async def test_data_are_kept_over_a_restart(stack_of: Any, untouched: Path) -> None:
    # A path as long as a repository may have, with what a path may hold: no unix socket's path would take it.
    data_dir = untouched / ("a long name " * 10) / 'quo"ted'
    async with stack_of(data_dir=data_dir) as stack:
        sequence = await put(stack.nats_url)
        connection = await asyncpg.connect(stack.postgres_url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        await connection.close()
    assert not (data_dir / "stack.json").exists()
    async with stack_of(data_dir=data_dir) as stack:
        assert await get(stack.nats_url, sequence) == CANARY
        connection = await asyncpg.connect(stack.postgres_url)
        assert await connection.fetchval("SELECT n FROM kept") == 42
        await connection.close()


async def test_an_ephemeral_stack_leaves_nothing(stack_of: Any) -> None:
    async with stack_of(servers={"nats"}) as stack:
        data_dir = stack.data_dir
        assert (data_dir / "stack.json").exists()
    assert not data_dir.exists()


async def test_a_lost_key_is_told_before_anything_starts(stack_of: Any, tmp_path: Path) -> None:
    async with stack_of(data_dir=tmp_path, servers={"nats", "postgres"}) as stack:
        await put(stack.nats_url)
    (tmp_path / "keys" / "nats.key").unlink()
    with pytest.raises(StackError, match=r"nats\.key is gone"):
        await stack_of(data_dir=tmp_path, servers={"nats"}).start()
    (tmp_path / "keys" / "postgres.password").chmod(0o644)
    with pytest.raises(StackError, match="may be read by others"):
        await stack_of(data_dir=tmp_path, servers={"postgres"}).start()


async def test_a_stale_pid_file_of_postgres_is_no_obstacle(stack_of: Any, tmp_path: Path) -> None:
    async with stack_of(data_dir=tmp_path, servers={"postgres"}):
        pass
    (tmp_path / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}/postgres\n1\n5433\n\n\n")
    async with stack_of(data_dir=tmp_path, servers={"postgres"}) as stack:
        await probe.postgres_ready(stack.postgres_url)


async def test_an_interrupted_initdb_is_done_again(stack_of: Any, tmp_path: Path) -> None:
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    async with stack_of(data_dir=tmp_path, servers={"postgres"}) as stack:
        await probe.postgres_ready(stack.postgres_url)
    assert not (tmp_path / "postgres.new").exists()


async def test_a_failed_start_shows_the_end_of_the_log(stack_of: Any, tmp_path: Path) -> None:
    async with stack_of(data_dir=tmp_path, servers={"postgres"}):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(NotReady, match=r"postgres ended with exit status 1(.|\n)*database files are incompatible"):
        await stack_of(data_dir=tmp_path, servers={"postgres"}).start()
    assert not (tmp_path / "stack.json").exists()


async def test_servers_that_run_already_are_used(stack_of: Any) -> None:
    async with stack_of() as outer:
        given = {"nats_url": outer.nats_url, "postgres_url": outer.postgres_url, "redis_url": outer.redis_url}
        async with stack_of(**given) as inner:
            assert inner.processes() == []
            assert (inner.nats_url, inner.redis_url) == (outer.nats_url, outer.redis_url)
            assert inner.postgres_url == outer.postgres_url


@pytest.mark.parametrize(
    ("option", "url", "variable"),
    [
        ("nats_url", "nats://127.0.0.1:9", "OCTO_NATS__URL"),
        ("postgres_url", "postgresql://a:secret@127.0.0.1:9/a", "OCTO_POSTGRES__URL"),
        ("redis_url", "redis://:secret@127.0.0.1:9/0", "OCTO_REDIS__URL"),
    ],
)
async def test_a_given_server_that_is_down_is_named(stack_of: Any, option: str, url: str, variable: str) -> None:
    with pytest.raises(StackError, match=variable) as failure:
        await stack_of(servers=(), **{option: url}).start()
    assert "secret" not in str(failure.value)


async def test_what_isnt_there_is_said(stack_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack_of(servers=()) as stack:
        with pytest.raises(StackError, match="has no nats"):
            _ = stack.nats_url
        with pytest.raises(StackError, match="runs no 'nats'"):
            await stack.kill("nats")
    monkeypatch.setenv("OCTO_NATS_SERVER_BIN", "no-such-server")
    with pytest.raises(StackError, match="no-such-server can't be run; check OCTO_NATS_SERVER_BIN"):
        await Stack(StackOptions(ephemeral=True, ports="free", servers=frozenset({"nats"}), services=())).start()


def test_the_binaries_are_the_wheels() -> None:
    assert (binaries() / "initdb").is_file()
