"""`octo verify` and `octo export`: the log on a real broker, and files anywhere."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from octollm.cli.failure import Exit
from octollm.cli.terminal import Terminal
from octollm.cli.verification import verify_log
from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Log
from octollm.stack import Stack, StackOptions
from tests.cli.conftest import Octo
from tests.events.examples import example

CORPUS = Path(__file__).parents[2] / "events" / "corpus"
VECTORS = CORPUS / "chain"
STORY = ("task.received", "task.planned", "step.dispatched", "step.executed", "task.completed")
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(octo: Octo, nats_url: str) -> Run:
    """`octo` in a thread of its own, on the test's broker."""

    async def run(*arguments: str, **options: Any) -> Result:
        return await asyncio.to_thread(octo, *arguments, "--nats", nats_url, **options)

    return run


async def write(client: bus.Client, task_id: str, *kinds: str, after: Position = Position.START) -> Position:
    log, position = Log(client, "test"), after
    for number, kind in enumerate(kinds):
        new = NewEvent(payload=example(kind), causation_id=task_id, key=str(number))
        position = (await log.append(task_id, new, position)).position
    return position


async def forge(client: bus.Client, task_id: str, **headers: str) -> int:
    """A message that no service wrote; its sequence."""
    envelope = {
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),
        "ce-type": "octollm.step.failed.v1",
        "ce-source": "/octollm/forger",
        "ce-time": "2026-11-22T12:00:00.000Z",
        "ce-subject": task_id,
        "ce-causationid": task_id,
        **headers,
    }
    return (await client.jetstream().publish(f"step.failed.{task_id}", b"{}", headers=envelope)).seq


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def corrupt(source: Path, target: Path, at: int) -> int:
    """A copy of an export in which the time of one event was changed; that event's sequence."""
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    lines[at]["headers"]["ce-time"] = "2001-01-01T00:00:00.000Z"
    target.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return int(lines[at]["seq"])


async def test_an_intact_task_is_called_so_and_no_more(run: Run, nats: bus.Client, task_id: str) -> None:
    end = await write(nats, task_id, *STORY)
    result = await run("verify", task_id)
    assert result.exit_code == Exit.DONE
    for said in ("5 event(s), ended", "chain intact, unsigned: a cut tail", "can't be seen", end.hash):
        assert said in result.stdout
    report = json.loads((await run("verify", task_id, "--json")).stdout)
    assert (report["intact"], report["signed"], report["events"], report["ended"]) == (True, False, 5, True)
    assert report["last"] == {"seq": end.seq, "version": 5, "hash": end.hash}


async def test_a_forged_event_is_named_with_what_to_do(run: Run, nats: bus.Client, task_id: str) -> None:
    position = await write(nats, task_id, *STORY[:3])
    seq = await forge(nats, task_id, **{"ce-taskversion": "4", "ce-prevhash": "ab" * 32})
    after = Position(seq=seq, version=position.version, hash=position.hash)
    await write(nats, task_id, "step.executed", after=after)
    result = await run("verify", task_id)
    assert result.exit_code == Exit.FAILED
    assert "chain broken in 1 place(s)" in result.stdout
    assert f"#{seq} FOREIGN  the event (version 4) does not belong to this task" in result.stdout
    assert f"→ trust nothing of this task from #{seq} on" in result.stdout
    assert "intact" not in result.stdout
    report = json.loads((await run("verify", task_id, "--json")).stdout)
    assert [(finding["seq"], finding["code"]) for finding in report["findings"]] == [(seq, "FOREIGN")]


async def test_what_no_service_could_have_written_is_named_too(run: Run, nats: bus.Client, task_id: str) -> None:
    end = await write(nats, task_id, *STORY)
    late = await forge(nats, task_id, **{"ce-taskversion": "6", "ce-prevhash": end.hash})
    junk = (await nats.jetstream().publish(f"step.executed.{task_id}", b"\xff", headers={"ce-id": "x"})).seq
    result = await run("verify", task_id)
    assert result.exit_code == Exit.FAILED
    assert f"#{late} AFTER_END  the event (version 6) comes after the task's end: #{end.seq} ended the task" in (
        result.stdout
    )
    assert f"#{junk} UNREADABLE  the event (no version) has no valid envelope: header ce-specversion is missing" in (
        result.stdout
    )


async def test_an_unknown_task_is_not_found(run: Run, task_id: str) -> None:
    for command, exit_code in (("verify", Exit.USAGE), ("export", Exit.FAILED)):
        result = await run(command, task_id)
        assert "NOT_FOUND" in result.stderr
        assert result.exit_code == exit_code


async def test_an_export_is_verified_anywhere(
    run: Run, octo: Octo, nats: bus.Client, task_id: str, tmp_path: Path
) -> None:
    await write(nats, task_id, *STORY)
    printed = await run("export", task_id)
    assert printed.exit_code == Exit.DONE
    first = json.loads(printed.stdout.splitlines()[0])
    assert set(first) == {"seq", "subject", "headers", "body", "stored_at"}
    assert first["subject"] == f"task.received.{task_id}"
    written = await run("export", task_id, "-o", "bug.octo.jsonl")
    assert "5 event(s)" in written.stderr
    assert files(tmp_path) == {"bug.octo.jsonl": printed.stdout}
    for arguments in ((), ("--all",), (task_id,), (task_id[:8],)):
        assert octo("verify", "--file", "bug.octo.jsonl", *arguments).exit_code == Exit.DONE
    assert octo("verify", "--file", "-", stdin=printed.stdout).exit_code == Exit.DONE
    seq = corrupt(Path("bug.octo.jsonl"), Path("changed.jsonl"), 2)
    result = octo("verify", "--file", "changed.jsonl")
    assert result.exit_code == Exit.FAILED
    assert f"#{seq} CHANGED  the event (version 3) is not what was written: #{seq + 1} follows it" in result.stdout


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_vector_is_told(octo: Octo, path: Path) -> None:
    wanted = json.loads(path.with_suffix(".report.json").read_text())
    result = octo("verify", "--all", "--file", str(path), "--json")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert reports == [task | {"signed": False, "receipts": None} for task in wanted["tasks"]]
    told = octo("verify", "--all", "--file", str(path))
    assert told.exit_code == result.exit_code == (Exit.DONE if wanted["intact"] else Exit.FAILED)
    for task in wanted["tasks"]:
        for finding in task["findings"]:
            assert f"#{finding['seq']} {finding['code']}  the event" in told.stdout


def test_of_two_last_events_that_contradict_each_other_neither_is_accused_alone(octo: Octo) -> None:
    result = octo("verify", "--file", str(VECTORS / "changed-body-before-last.jsonl"))
    assert "#21 CHANGED" in result.stdout
    assert "or #23 itself was changed" in result.stdout
    sure = octo("verify", "--file", str(VECTORS / "changed-body.jsonl"))
    assert "itself was changed" not in sure.stdout


@pytest.mark.parametrize(
    "content", [b"no json\n", b'{"seq":1}\n', b"\xff\n", b"[" * 2_000_000, b'{"seq":0,"subject":"a.b.c"}']
)
def test_what_is_no_export_is_named_by_its_line(octo: Octo, tmp_path: Path, content: bytes) -> None:
    good = (VECTORS / "intact.jsonl").read_bytes()
    (tmp_path / "x.jsonl").write_bytes(good + content)
    result = octo("verify", "--file", "x.jsonl")
    assert result.exit_code == Exit.USAGE
    assert "line 8 is no exported message" in result.stderr


def test_receipts_are_verified_where_there_is_a_key(octo: Octo, tmp_path: Path) -> None:
    """Real events with real receipts: by the key of the data directory, by one that is named, and by none."""
    messages = (CORPUS / "receipt" / "messages.jsonl").read_text()
    Path("log.jsonl").write_text(messages)
    key = json.loads((CORPUS / "receipt" / "cases.json").read_bytes())["public_key"]
    Path("own.pub").write_text(f"{key}\n")
    Path("other.pub").write_text("ed25519/c3dcddbab58c6e22b159a1b3df9c5ddab3f2f9e9b4c549aeb67206d29d19cdb1\n")
    none = octo("verify", "--file", "log.jsonl")
    assert none.exit_code == Exit.DONE
    assert "receipts not verified: no public key is at hand" in none.stdout
    named = octo("verify", "--file", "log.jsonl", "--receipt-key", "own.pub")
    assert named.exit_code == Exit.DONE
    for said in ("receipts verified 3 of 3", "receipts verified 5 of 5: whoever", "sign anything", "host's kernel"):
        assert said in named.stdout
    one = octo("verify", json.loads(messages.splitlines()[0])["headers"]["ce-subject"], "--file", "log.jsonl", "--json")
    assert json.loads(one.stdout)["receipts"] is None
    foreign = octo("verify", "--file", "log.jsonl", "--receipt-key", "other.pub")
    assert foreign.exit_code == Exit.FAILED
    assert "receipts verified 0 of 5" in foreign.stdout
    assert "#6 UNKNOWN_KEY  the result has a receipt of a key that is not at hand: key " in foreign.stdout
    Path(".octo/keys").mkdir(parents=True)
    Path("own.pub").rename(".octo/keys/receipt.pub")
    lines = messages.splitlines(keepends=True)
    Path("removed.jsonl").write_text("".join(lines[:5] + lines[6:]))
    removed = octo("verify", "--file", "removed.jsonl", "--json")
    assert removed.exit_code == Exit.FAILED
    first = json.loads(removed.stdout.splitlines()[0])["receipts"]
    assert (first["results"], first["verified"]) == (2, 1)
    assert [(finding["seq"], finding["code"]) for finding in first["findings"]] == [(8, "BROKEN_CHAIN")]


def test_wrong_usage(octo: Octo, tmp_path: Path) -> None:
    for arguments in ((), (str(uuid.uuid4()), "--all"), ("--file", "nowhere"), ("--file", ".")):
        assert octo("verify", *arguments).exit_code == Exit.USAGE
    both = (VECTORS / "intact-two-tasks.jsonl").read_text()
    Path("both.jsonl").write_text(both)
    assert "give more of the id" in octo("verify", "", "--file", "both.jsonl").stderr
    assert "holds nothing about this task" in octo("verify", "ffff", "--file", "both.jsonl").stderr


def test_a_log_that_can_not_be_read_is_neither_intact_nor_broken(octo: Octo, closed_port: int, tmp_path: Path) -> None:
    task_id = str(uuid.uuid4())
    for arguments in (("verify", task_id), ("verify", "--all"), ("export", task_id), ("export", task_id, "-o", "x")):
        result = octo(*arguments, "--nats", f"nats://127.0.0.1:{closed_port}")
        assert result.exit_code == Exit.INFRASTRUCTURE
        assert "can't be reached" in result.stderr
    assert not Path("x").exists()


async def test_a_whole_log_on_a_broker_of_its_own(octo: Octo) -> None:
    options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url), "test")

        async def verify(*arguments: str) -> Result:
            return await asyncio.to_thread(octo, "verify", "--all", "--nats", stack.nats_url, *arguments)

        empty = await verify()
        assert (empty.exit_code, empty.stdout) == (Exit.DONE, "")
        tasks = [str(uuid.uuid4()) for _ in range(150)]
        await asyncio.gather(*(write(client, task_id, *STORY) for task_id in tasks))
        whole = await verify()
        assert whole.exit_code == Exit.DONE
        assert "150 task(s), 750 event(s): chain intact, unsigned: a cut tail" in whole.stdout
        assert all(f"✓ {task_id}  5 event(s), ended" in whole.stdout for task_id in tasks)
        seq = await forge(client, tasks[3], **{"ce-taskversion": "6", "ce-prevhash": "cd" * 32})
        broken = await verify()
        assert broken.exit_code == Exit.FAILED
        assert f"✗ {tasks[3]}  6 event(s), not ended: chain broken in 1 place(s)" in broken.stdout
        assert f"#{seq} AFTER_END" in broken.stdout
        assert "1 of 150 task(s) broken, 751 event(s) checked" in broken.stdout
        reports = [json.loads(line) for line in (await verify("--json")).stdout.splitlines()]
        assert [report["task_id"] for report in reports if not report["intact"]] == [tasks[3]]
        await client.close()


async def test_who_may_not_read_the_log_is_told_so_and_who_may_can_verify_it(tmp_path: Path) -> None:
    """In a process of its own: nothing but the failure is said."""
    options = StackOptions(ephemeral=True, ports="free", servers=frozenset({"nats"}), services=())
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
    async with Stack(options) as stack:

        async def verify(**environment: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "octollm.cli.main", "verify", "--all", "--nats", stack.nats_url),
                env=plain | environment,
                cwd=tmp_path,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            return process.returncode, errors.decode()

        exit_code, said = await verify()
        assert exit_code == Exit.INFRASTRUCTURE
        assert "FORBIDDEN" in said
        assert "OCTO_NATS__NKEY_FILE" in said
        assert "Traceback" not in said
        assert (await verify(OCTO_NATS__NKEY_FILE=str(stack.nkey_file())))[0] == Exit.DONE


async def test_a_person_sees_how_far_it_is(nats_url: str, nats: bus.Client, task_id: str) -> None:
    from io import StringIO

    from rich.console import Console

    await write(nats, task_id, *STORY)
    terminal = Terminal(False)
    shown = StringIO()
    terminal.err = Console(file=shown, force_terminal=True, width=100)
    terminal.out = Console(file=StringIO(), width=200)
    exit_code = await asyncio.to_thread(verify_log, terminal, NatsSettings(url=nats_url), task_id, None)
    assert exit_code == Exit.DONE
    assert "5/5" in shown.getvalue()
