"""What dies is started again; what keeps dying ends the stack; what is stopped stays stopped."""

import asyncio
import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import nats as nats_client
import pytest
from nats.js.api import StreamConfig

from octollm.stack import GaveUp, NotReady, Progress, Stack, StackError, State, Wiring, procfs
from octollm.stack.options import ensure_streams
from octollm.stack.probe import http_get
from octollm.stack.supervisor import LONGEST_DELAY_SECONDS, backoff


async def body(url: str) -> str:
    return (await http_get(url))[1].decode()


async def until_it_ends(stack: Stack) -> None:
    await stack.start()
    await stack.wait()


async def test_nats_is_restarted_with_its_data_on_its_port(stack_of: Any) -> None:
    async with stack_of(servers={"nats"}) as stack:
        url, pid = stack.nats_url, stack.processes()[0].pid
        client = await nats_client.connect(url)
        await client.jetstream().add_stream(StreamConfig(name="S", subjects=["s.*"]))
        await client.jetstream().publish("s.a", b"kept")
        await client.close()
        await stack.kill("nats")
        await stack.ready("nats")
        assert stack.nats_url == url
        after = stack.processes()[0]
        assert (after.restarts, after.state) == (1, State.READY)
        assert after.pid != pid
        client = await nats_client.connect(url)
        assert (await client.jetstream().get_msg("S", 1)).data == b"kept"
        await client.close()


async def test_postgres_is_restarted_with_its_data(stack_of: Any) -> None:
    async with stack_of(servers={"postgres"}) as stack:
        connection = await asyncpg.connect(stack.postgres_url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        await stack.kill("postgres")
        await stack.ready("postgres")
        connection = await asyncpg.connect(stack.postgres_url)
        assert await connection.fetchval("SELECT n FROM kept") == 42
        await connection.close()


async def test_valkey_is_restarted(stack_of: Any) -> None:
    async with stack_of(servers={"valkey"}) as stack:
        await stack.kill("valkey", signal.SIGTERM)
        await stack.ready("valkey")


async def test_a_service_starts_after_its_servers_and_is_restarted(stack_of: Any, fake: Any, eventually: Any) -> None:
    seen: list[Progress] = []
    booted: list[str] = []

    async def bootstrap(url: str, _: Path | None) -> None:
        booted.append(url)

    async with stack_of(servers={"nats"}, services=(fake(),), bootstrap=bootstrap, progress=seen.append) as stack:
        assert booted == [stack.nats_url]
        names = [(step.name, step.state) for step in seen]
        assert names.index(("streams", State.READY)) < names.index(("fake", State.STARTING))
        assert names[-1] == ("stack", State.READY)
        pid = int(await body(f"{stack.url('fake')}/pid"))
        await stack.kill("fake")
        await stack.ready("fake")
        again = int(await body(f"{stack.url('fake')}/pid"))
        assert again != pid
        assert ("fake", "was ended by SIGKILL") in [(step.name, step.detail) for step in seen]
        await stack.restart("fake")
        assert int(await body(f"{stack.url('fake')}/pid")) not in (pid, again)
        assert next(p for p in stack.processes() if p.name == "fake").restarts == 2


async def test_the_streams_of_the_contract_are_made(stack_of: Any) -> None:
    async with stack_of(servers={"nats"}, bootstrap=ensure_streams) as stack:
        client = await nats_client.connect(stack.nats_url)
        names = {info.config.name for info in await client.jetstream().streams_info()}
        assert {"COMMANDS", "EVENTS", "TIMERS"} <= names
        await client.close()


async def test_a_service_waits_for_the_servers_it_uses_only(stack_of: Any, fake: Any) -> None:
    seen: list[tuple[str, State]] = []

    def port(wiring: Wiring) -> dict[str, str]:
        return {"OCTO_FAKE__PORT": wiring.url("late").rpartition(":")[2]}

    late = replace(fake(), name="late", sections=("NATS", "POSTGRES"), settings=port)
    async with stack_of(services=(fake(), late), progress=lambda step: seen.append((step.name, step.state))):
        assert seen.index(("postgres", State.READY)) < seen.index(("late", State.STARTING))
        assert seen.index(("nats", State.READY)) < seen.index(("fake", State.STARTING))
        assert seen.index(("fake", State.READY)) < seen.index(("late", State.STARTING))


async def test_streams_that_cant_be_made_end_the_start(stack_of: Any) -> None:
    async def refuse(_: str, __: Path | None) -> None:
        raise ValueError("EVENTS differs")

    stack = stack_of(servers={"nats"}, bootstrap=refuse)
    with pytest.raises(StackError, match="the streams can't be made: EVENTS differs"):
        await stack.start()
    assert procfs.marked(stack.stack_id) == set()


async def test_a_chaos_test_may_kill_as_often_as_it_likes(stack_of: Any, fake: Any) -> None:
    async with stack_of(servers=(), services=(fake(),)) as stack:
        for _ in range(7):
            await stack.kill("fake")
            await stack.ready("fake")
        assert stack.processes()[0].restarts == 7


async def test_restarts_at_once_are_one_after_the_other(stack_of: Any, fake: Any) -> None:
    async with stack_of(servers=(), services=(fake(),)) as stack:
        await asyncio.gather(*(stack.restart("fake") for _ in range(3)))
        assert stack.processes()[0].restarts == 3
        assert len(procfs.marked(stack.stack_id)) == 1


async def test_what_keeps_dying_ends_the_stack(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers={"valkey"}, services=(fake("die-after=0.05"),))
    began = time.monotonic()
    with pytest.raises(GaveUp, match=r"fake died 5 times within 60 s.*exit status 3(.|\n)*fake: serving"):
        await until_it_ends(stack)
    assert time.monotonic() - began < 30
    assert stack.state is State.FAILED
    assert procfs.marked(stack.stack_id) == set()
    await stack.stop()


async def test_a_service_that_cant_start_is_told_with_its_log(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers={"valkey"}, services=(fake("die-at-once"),))
    with pytest.raises(NotReady, match=r"fake ended with exit status 1; the end of (.|\n)*fake: this setting is wrong"):
        await stack.start()
    assert procfs.marked(stack.stack_id) == set()


async def test_a_service_that_doesnt_become_ready_is_told(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers=(), services=(fake("not-ready"),), start_seconds=1)
    with pytest.raises(NotReady, match=r"fake isn't ready after 1 s .*answers 503"):
        await stack.start()
    assert procfs.marked(stack.stack_id) == set()


async def test_stop_kills_what_wont_end(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers=(), services=(fake("ignore-term", "grandchild", drain_seconds=0.2),))
    await stack.start()
    assert len(procfs.marked(stack.stack_id)) == 2
    await stack.stop()
    assert procfs.marked(stack.stack_id) == set()
    assert stack.processes()[0].state is State.STOPPED


async def test_stop_now_cuts_a_drain_short(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers=(), services=(fake("ignore-term", drain_seconds=60),))
    await stack.start()
    began = time.monotonic()
    await stack.stop(now=True)
    assert time.monotonic() - began < 10
    assert procfs.marked(stack.stack_id) == set()


async def test_a_failed_test_leaves_nothing(stack_of: Any, fake: Any) -> None:
    stack = stack_of(servers={"nats"}, services=(fake(),))
    with pytest.raises(ZeroDivisionError):
        async with stack:
            _ = 1 / 0
    assert procfs.marked(stack.stack_id) == set()


async def test_a_killed_process_is_said_to_be_gone(stack_of: Any, fake: Any) -> None:
    async with stack_of(servers=(), services=(fake(),)) as stack:
        await stack.kill("fake")
        with pytest.raises(NotReady, match="no process"):
            await stack.kill("fake")
        with pytest.raises(NotReady, match="fake is restarting, not ready, after 0 s"):
            await stack.ready("fake", seconds=0)
        await stack.ready("fake")


async def test_a_service_sees_its_own_settings_only(
    stack_of: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("OCTO_PLANNER__API_KEY", "canary")
    monkeypatch.setenv("OCTO_FAKE__COLOUR", "green")
    async with stack_of(servers={"nats"}, services=(fake(),), environment={"OCTO_FAKE__SIZE": "7"}) as stack:
        seen = json.loads(await body(f"{stack.url('fake')}/environment"))
        assert "canary" not in json.dumps(seen)
        assert seen["OCTO_FAKE__COLOUR"] == "green"
        assert seen["OCTO_FAKE__SIZE"] == "7"
        assert seen["OCTO_NATS__URL"] == stack.nats_url
    async with stack_of(servers=(), services=(fake(passes=("OPENAI_",)),)) as stack:
        seen = json.loads(await body(f"{stack.url('fake')}/environment"))
        assert seen["OPENAI_API_KEY"] == "sk-canary"


def test_backoff_grows_and_is_bounded() -> None:
    assert [backoff(n, 0.5) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert backoff(1, 0.0) == 0.05
    assert backoff(50, 0.999) < LONGEST_DELAY_SECONDS * 1.5
