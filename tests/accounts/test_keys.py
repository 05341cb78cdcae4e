"""Where private keys are, and where they are not; and what the two clients say to a refusal."""

import asyncio
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from octollm.cli import stack_checks
from octollm.cli.finding import Verdict
from octollm.events import bus, direct
from octollm.events.config import ConfigError, NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Forbidden, Log, LogError
from octollm.stack import Stack, StackError, StackOptions, accounts
from octollm.stack.keys import nkey
from tests.accounts.conftest import SERVICES, connect
from tests.events.examples import example
from tests.events.writers import writer

AT_ONCE_S = 0.1


def settings(stack: Stack, account: str) -> NatsSettings:
    return NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file(account))


def test_seeds_are_in_their_files_only(stack: Stack) -> None:
    files = sorted((stack.data_dir / "keys").glob("nats-*.nk"))
    assert [file.name for file in files] == sorted(f"nats-{name}.nk" for name in (*SERVICES, "operator", "bootstrap"))
    seeds = [file.read_bytes() for file in files]
    assert len(set(seeds)) == len(files)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    [server] = stack.processes()
    elsewhere = [Path(f"/proc/{server.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    elsewhere += [path.read_bytes() for path in stack.data_dir.rglob("*") if path.is_file() and path not in files]
    for seed in seeds:
        assert seed.startswith(b"SU")
        assert not [content for content in elsewhere if seed in content]


def test_keys_are_made_once(tmp_path: Path) -> None:
    first = accounts.configuration(tmp_path)
    assert accounts.configuration(tmp_path) == first
    key = accounts.key_file(tmp_path, "planner")
    assert nkey(key) in first
    key.write_text("not a seed")
    with pytest.raises(StackError, match="seed"):
        accounts.configuration(tmp_path)
    key.chmod(0o644)
    with pytest.raises(StackError, match="0600"):
        accounts.configuration(tmp_path)


async def test_a_log_of_another_account_is_not_left_behind(tmp_path: Path) -> None:
    options = StackOptions(data_dir=tmp_path, ports="free", servers=frozenset({"nats"}), services=())
    async with Stack(replace(options, accounts=False)):
        pass
    with pytest.raises(StackError, match="new data directory"):
        await Stack(options).start()


async def test_the_operator_s_key_is_named_in_the_state(stack: Stack) -> None:
    from octollm.stack.state import read

    state = read(stack.data_dir)
    assert state
    operator = await connect(state.nats_url, "operator", Path(state.nats_nkey_file))
    await operator.ask("task.cancel")
    await operator.client.close()


@pytest.mark.parametrize("content", [None, "SUnonsense", "secret-canary"])
async def test_a_key_file_that_is_none_is_named_but_not_shown(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "key.nk"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigError, match="OCTO_NATS__NKEY_FILE") as caught:
        await bus.connect(NatsSettings(nkey_file=path), "planner")
    assert content is None or content not in str(caught.value)


async def test_the_python_log_is_told_at_once(stack: Stack) -> None:
    client = await bus.connect(settings(stack, "planner"), "planner")
    anybody = await bus.connect(NatsSettings(url=stack.nats_url), "anybody")
    log, closed = Log(client, "planner"), Log(anybody, "anybody")

    async def append(log: Log, kind: str) -> Position:
        task_id = str(uuid.uuid4())
        new = NewEvent(payload=example(kind), causation_id=task_id)
        return (await log.append(task_id, new, Position.START)).position

    assert (await append(log, "task.planned")).seq
    attempts = {
        "append": lambda: append(log, "task.received"),
        "append without a key": lambda: append(closed, "task.received"),
        "read": lambda: closed.read(str(uuid.uuid4())),
        "batch": lambda: closed.read(str(uuid.uuid4()), after=Position(1, 1, "0" * 64, False)),
        "last": closed.last_seq,
        "follow": lambda: anext(closed.follow()),
    }
    for name, attempt in attempts.items():
        took = []
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(Forbidden):
                await attempt()  # type: ignore[no-untyped-call]
            took.append(time.monotonic() - began)
        assert min(took) < AT_ONCE_S, name
    await client.close()
    await anybody.close()


async def test_the_rust_log_is_told_at_once(stack: Stack) -> None:
    key = {"OCTO_NATS__NKEY_FILE": str(stack.nkey_file("planner"))}
    async with writer("rust", stack.nats_url, "planner", key) as rust:

        async def append(kind: str) -> Position:
            task_id = str(uuid.uuid4())
            return await rust.append(task_id, NewEvent(payload=example(kind), causation_id=task_id), Position.START)

        assert (await append("task.planned")).seq
        took = []
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(LogError, match=r"may not write task\.received\."):
                await append("task.received")
            took.append(time.monotonic() - began)
        assert min(took) < AT_ONCE_S


async def test_a_reader_needs_no_consumer(stack: Stack) -> None:
    client = await bus.connect(settings(stack, "projections"), "projections")
    reflex = await bus.connect(settings(stack, "reflex"), "reflex")
    log = Log(reflex, "reflex")
    task_ids = [str(uuid.uuid4()) for _ in range(300)]
    first = await Log(client, "projections").last_seq() + 1
    for task_id in task_ids[:290]:
        await log.append(task_id, NewEvent(payload=example("task.received"), causation_id=task_id), Position.START)
    found: list[str] = []
    async with asyncio.timeout(30):
        async for message in direct.follow(client, "EVENTS", first):
            if message.subject.startswith("task.received."):
                found.append(message.subject.removeprefix("task.received."))
            if len(found) == 290:
                began = time.monotonic()
                for task_id in task_ids[290:]:
                    new = NewEvent(payload=example("task.received"), causation_id=task_id)
                    await log.append(task_id, new, Position.START)
            if len(found) == 300:
                break
    assert found == task_ids
    # It heard of them: looking for itself would take as long as it waits between two looks.
    assert time.monotonic() - began < 1.5
    await client.close()
    await reflex.close()


async def test_the_doctor_looks_with_the_operator_s_key(stack: Stack) -> None:
    findings = [finding async for finding in stack_checks.broker(settings(stack, "operator"))]
    assert [(finding.name, finding.verdict) for finding in findings] == [("nats", Verdict.OK), ("streams", Verdict.OK)]
