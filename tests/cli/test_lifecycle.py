"""A whole stack through the command line: started, used, examined, stopped. Without the Rust binaries it fails."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from octollm.stack import procfs
from octollm.stack.state import read

DEADLINE_S = 90.0

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


def environment() -> dict[str, str]:
    """Of whoever runs the tests, without their configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
    if binaries := os.environ.get("OCTO_BIN_DIR"):
        kept["OCTO_BIN_DIR"] = str(Path(binaries).absolute())
    return kept


async def start(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "octollm.cli.main", *arguments),
        cwd=directory,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def octo(directory: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = await start(directory, *arguments)
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return process.returncode or 0, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A directory in which `octo up -d` was run."""
    directory = tmp_path_factory.mktemp("stack")
    code, out, err = await octo(directory, "up", "-d", "--ports", "free", "--no-fsync")
    assert code == 0, out + err
    assert "octo submit" in out
    yield directory
    state = read(directory / ".octo")
    assert state
    code, out, err = await octo(directory, "down", "--json")
    assert code == 0, err
    assert json.loads(out)["stopped"] is True
    assert not state.alive
    assert procfs.marked(state.stack_id) == set()
    assert read(directory / ".octo") is None


async def submitted(directory: Path, *arguments: str) -> dict[str, Any]:
    code, out, err = await octo(directory, "submit", *arguments, "--json")
    assert code == 0, err
    accepted: dict[str, Any] = json.loads(out)
    return accepted


async def test_ps_lists_every_program(running: Path) -> None:
    code, out, _ = await octo(running, "ps", "--json")
    assert code == 0
    states = {process["name"]: process["state"] for process in json.loads(out)["processes"]}
    assert len(states) == 8
    assert set(states.values()) == {"ready"}


async def test_submit_and_watch_end_with_the_task(running: Path) -> None:
    code, out, err = await octo(running, "submit", "Echo hello world", "--watch", "--wait", "60")
    assert code == 0, out + err
    assert out.rstrip().endswith("hello world")


async def test_the_view_knows_what_was_submitted(running: Path) -> None:
    accepted = await submitted(running, "Echo hello view")
    prefix = accepted["task_id"][:13]
    assert (await octo(running, "watch", accepted["task_id"], "--wait", "60"))[0] == 0
    last = (await octo(running, "tail", "--task", accepted["task_id"], "--no-follow", "--json"))[1].splitlines()[-1]
    code, out, err = await octo(running, "show", prefix, "--json", "--min-seq", str(json.loads(last)["seq"]))
    assert code == 0, err
    assert json.loads(out)["task"]["status"] == "completed"
    listed = json.loads((await octo(running, "ls", "--json", "--status", "completed"))[1])
    assert accepted["task_id"] in {task["task_id"] for task in listed["tasks"]}
    code, out, err = await octo(running, "show", prefix)
    assert "hello view" in out


async def test_files_arrive_with_mode_and_content(running: Path) -> None:
    (running / "in").mkdir()
    (running / "in" / "a.txt").write_text("alpha\nbeta\n")
    plan = {"steps": [{"id": "count", "action": {"kind": "command", "pipeline": [["wc", "-l", "in/a.txt"]]}}]}
    (running / "plan.json").write_text(json.dumps(plan))
    code, out, err = await octo(
        running, "submit", "Count the lines", "--file", "in", "--plan", "plan.json", "--watch", "--wait", "60"
    )
    assert code == 0, out + err
    assert "2 in/a.txt" in out


async def test_cancel_stops_a_running_step(running: Path) -> None:
    plan = {"steps": [{"id": "nap", "action": {"kind": "command", "pipeline": [["sleep", "60"]]}, "effect": "pure"}]}
    (running / "nap.json").write_text(json.dumps(plan))
    accepted = await submitted(running, "Sleep", "--plan", "nap.json")
    watching = asyncio.create_task(octo(running, "watch", accepted["task_id"], "--wait", "60"))
    code, _, err = await octo(running, "cancel", accepted["task_id"], "--reason", "wrong folder")
    assert code == 0, err
    code, out, err = await watching
    assert code == 6, out + err
    assert "wrong folder" in out


async def test_the_operator_runs_an_action_at_once(running: Path) -> None:
    code, out, err = await octo(running, "execute", "--", "echo", "at once")
    assert (code, out) == (0, "at once\n"), err
    code, out, err = await octo(running, "execute", "--timeout", "0.5", "--", "sleep", "60")
    assert code == 1
    assert "TIMEOUT" in err
    code, out, err = await octo(running, "execute", "--json", "--", "bash", "-c", "id")
    assert code == 1
    assert json.loads(out)["result"]["code"] == "POLICY_DENIED"


async def post_execution(running: Path, key: str, request: dict[str, Any]) -> tuple[int, str]:
    """Status, and the problem's code."""
    state = read(running / ".octo")
    assert state
    async with httpx.AsyncClient(timeout=DEADLINE_S) as http:
        bearer = {"authorization": f"Bearer {key}"}
        answer = await http.post(f"{state.url('executor')}/api/v1/execute", json=request, headers=bearer)
    return answer.status_code, answer.json().get("code", "")


async def test_a_grant_is_good_once_for_what_it_says_and_with_the_operators_key(running: Path) -> None:
    code, out, err = await octo(running, "grant", "--", "echo", "once")
    assert code == 0, err
    request: dict[str, Any] = json.loads(out)
    key = (running / ".octo" / "keys" / "operator.key").read_text()
    other = json.loads(out)
    other["step"]["action"]["pipeline"] = [["cat", "/etc/passwd"]]
    assert await post_execution(running, "0" * 64, request) == (401, "UNAUTHORIZED")
    assert await post_execution(running, key, other) == (403, "CAPABILITY_VIOLATION")
    assert await post_execution(running, key, request) == (200, ""), "refusals have not used it up"
    assert await post_execution(running, key, request) == (409, "REPLAYED")
    dispatched = (await octo(running, "tail", "--kind", "step.dispatched", "--no-follow", "--json"))[1].splitlines()[-1]
    on_the_bus = json.loads(dispatched)
    payload, task_id = on_the_bus["payload"], on_the_bus["subject"].rsplit(".", 1)[1]
    taken = {"task_id": task_id, "step": payload["step"], "capability": payload["capability"]}
    assert await post_execution(running, key, taken) == (403, "CAPABILITY_VIOLATION")


async def test_the_private_key_is_nowhere_but_in_its_file(running: Path) -> None:
    private = (running / ".octo" / "keys" / "capability.key").read_text().partition("/")[2].encode()
    assert private
    files = [path for path in (running / ".octo").rglob("*") if path.is_file()]
    holding = [path.name for path in files if private in path.read_bytes()]
    assert holding == ["capability.key"]


async def test_doctor_finds_nothing_wrong(running: Path) -> None:
    code, out, err = await octo(running, "doctor", "--json")
    wrong = [check for check in json.loads(out)["checks"] if check["verdict"] == "wrong"]
    # The stack was started without fsync on purpose, and that is what doctor says.
    assert [check["name"] for check in wrong] == ["nats fsync"], err
    assert code == 75


async def test_logs_are_there(running: Path) -> None:
    code, out, _ = await octo(running, "logs", "reflex", "-n", "5")
    assert code == 0
    assert out


async def test_a_second_stack_is_refused(running: Path) -> None:
    code, out, err = await octo(running, "up", "-d", "--ports", "free")
    assert code == 75
    assert "another stack" in err, out


async def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    process = await start(tmp_path, "up", "--ports", "free", "--no-fsync", "--json")
    assert process.stdout
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for line in process.stdout:
                report = json.loads(line)
                if (report["name"], report["state"]) == ("stack", "ready"):
                    break
            state = read(tmp_path / ".octo")
            assert state
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    assert procfs.marked(state.stack_id) == set()
