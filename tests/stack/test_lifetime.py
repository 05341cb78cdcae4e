"""A stack and its supervisor: one to a directory, ended by a signal, by ``down``, and by kill -9 without an orphan."""

import asyncio
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from octollm.stack import AlreadyRunning, NotRunning, StackError, State, postgres, probe, procfs, state


async def test_kill_9_of_the_supervisor_leaves_no_child(
    supervising: Any, stack_of: Any, eventually: Any, tmp_path: Path
) -> None:
    async with supervising(tmp_path, "nats,postgres,valkey", "grandchild") as runner:
        await runner.until("stack", "ready")
        left = runner.state()
        pids = {process.pid for process in left.processes}
        assert len(pids) == 4
        assert left.alive
        backends = postgres.left_running(tmp_path / "postgres")
        assert len(backends) > 1
        runner.process.send_signal(signal.SIGKILL)
        await runner.process.wait()
        assert not left.alive
        await eventually(lambda: not any(procfs.started(pid) for pid in pids | backends))
        # A grandchild in a session of its own is beyond the kernel's help; the next stack on the directory clears it.
        assert len(procfs.marked(left.stack_id)) == 1
        async with stack_of(data_dir=tmp_path, servers={"nats", "postgres"}) as stack:
            assert procfs.marked(left.stack_id) == set()
            await probe.postgres_ready(stack.postgres_url)


async def test_a_new_stack_may_start_while_a_killed_one_ends(supervising: Any, stack_of: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "nats,postgres") as runner:
        await runner.until("stack", "ready")
        runner.process.send_signal(signal.SIGKILL)
        await runner.process.wait()
        async with stack_of(data_dir=tmp_path, servers={"nats", "postgres"}) as stack:
            await probe.postgres_ready(stack.postgres_url)
            await probe.nats_ready(stack.nats_url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_it_services_first(supervising: Any, tmp_path: Path, number: signal.Signals) -> None:
    async with supervising(tmp_path, "nats,valkey") as runner:
        await runner.until("stack", "ready")
        left = runner.state()
        runner.process.send_signal(number)
        await runner.until("stack", "stopped")
        assert await runner.process.wait() == 0
        ended = [name for name, to, _ in runner.seen if to == "stopped"]
        assert ended[0] == "fake"
        assert set(ended) == {"fake", "nats", "valkey", "stack"}
        assert left.leftovers() == set()
        assert state.read(tmp_path) is None


async def test_a_signal_during_the_start_stops_it(supervising: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "nats", "not-ready") as runner:
        await runner.until("fake", "starting")
        left = runner.state()
        runner.process.send_signal(signal.SIGINT)
        await runner.until("stack", "stopped")
        assert await runner.process.wait() == 0
        assert left.leftovers() == set()


async def test_a_second_ctrl_c_means_now(supervising: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "valkey", "ignore-term") as runner:
        await runner.until("stack", "ready")
        left = runner.state()
        runner.process.send_signal(signal.SIGINT)
        await runner.until("fake", "stopping")  # it would drain for a minute
        began = time.monotonic()
        runner.process.send_signal(signal.SIGINT)
        assert await runner.process.wait() == 0
        assert time.monotonic() - began < 20
        assert left.leftovers() == set()


async def test_down_from_another_process(supervising: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "nats,postgres") as runner:
        await runner.until("stack", "ready")
        running = state.running(tmp_path)
        assert running.state is State.READY
        await probe.postgres_ready(running.postgres_url)
        assert (await probe.http_get(f"{running.url('fake')}/pid"))[1].decode() == str(running.processes[-1].pid)
        assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600
        assert "@" not in repr(running)
        await state.down(tmp_path)
        assert running.leftovers() == set()
        await asyncio.wait_for(runner.process.wait(), 10)
        with pytest.raises(NotRunning):
            await state.down(tmp_path)


async def test_down_hurries_a_stack_that_drains_too_long(supervising: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "valkey", "ignore-term") as runner:
        await runner.until("stack", "ready")
        left = runner.state()
        await state.down(tmp_path, drain_seconds=0.2)
        assert left.leftovers() == set()


async def test_down_clears_what_a_killed_supervisor_left(supervising: Any, tmp_path: Path) -> None:
    async with supervising(tmp_path, "valkey", "grandchild") as runner:
        await runner.until("stack", "ready")
        left = runner.state()
        runner.process.send_signal(signal.SIGKILL)
        await runner.process.wait()
        await state.down(tmp_path)
        assert left.leftovers() == set()
        assert state.read(tmp_path) is None


async def test_down_never_signals_a_process_that_took_over_the_pid(stack_of: Any, tmp_path: Path) -> None:
    async with stack_of(data_dir=tmp_path, servers={"valkey"}):
        real = state.read(tmp_path)
        assert real
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    fields = {name: getattr(real, name) for name in real.__struct_fields__}
    ticks = procfs.started(stranger.pid)
    assert ticks
    state.write(tmp_path, state.StackState(**{**fields, "pid": stranger.pid, "started_ticks": ticks - 1}))
    await state.down(tmp_path)
    assert procfs.started(stranger.pid) == ticks
    stranger.kill()
    await stranger.wait()


async def test_one_stack_to_a_directory(stack_of: Any, tmp_path: Path) -> None:
    async with stack_of(data_dir=tmp_path, servers={"valkey"}) as first:
        with pytest.raises(AlreadyRunning, match=rf"another stack \(pid {os.getpid()}\) runs on .*octo down"):
            await stack_of(data_dir=tmp_path, servers={"valkey"}).start()
        await probe.redis_ready(first.redis_url)
        assert state.running(tmp_path).stack_id == first.stack_id
    with pytest.raises(NotRunning, match="octo up"):
        state.running(tmp_path)


async def test_a_stack_is_started_once(stack_of: Any) -> None:
    async with stack_of(servers=()) as stack:
        with pytest.raises(StackError, match="started before"):
            await stack.start()


async def test_a_state_file_of_another_version_is_told(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"version": "0"}')
    with pytest.raises(StackError, match="another version"):
        state.read(tmp_path)
