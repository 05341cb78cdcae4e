"""`octo execute` and `octo grant`: what is signed and sent, and how the executor's answer is told."""

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from typer.testing import Result

from octollm.cli.failure import Exit
from octollm.events import schema
from octollm.events.carrier import Step
from tests.cli.conftest import FakeServer, Octo
from tests.events.verifier import TOKENS, grants

PATH = "/api/v1/execute"
OPERATOR_KEY = "0123456789abcdef" * 4


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The keys of a stack in the current directory."""
    folder = tmp_path / ".octo" / "keys"
    folder.mkdir(parents=True)
    for name, text in (("capability.key", TOKENS["private_key"]), ("operator.key", OPERATOR_KEY)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder


def report(kind: str, **changes: Any) -> dict[str, Any]:
    """The executor's answer: the first example of a kind, changed."""
    example: dict[str, Any] = schema.documents()[kind]["examples"][0]
    return {"result": example | changes}


def output(stdout: str, stderr: str = "", **changes: Any) -> dict[str, Any]:
    def stream(text: str) -> dict[str, Any]:
        whole = {"head": text, "tail": "", "bytes": len(text), "digest": "0" * 64, "truncated": False, "lossy": False}
        return whole | changes

    return {"stdout": stream(stdout), "stderr": stream(stderr)}


def sent(server: FakeServer) -> dict[str, Any]:
    [(_, path, _, request)] = server.requests
    assert path == PATH
    body: dict[str, Any] = request
    return body


def is_granted(request: dict[str, Any], at: datetime, **changes: Any) -> bool:
    """Whether the request's token grants what the request asks for."""
    step = request["step"]
    asked = {
        "audience": "executor/execute",
        "task": request["task_id"],
        "plan": 1,
        "step": step["id"],
        "attempt": 1,
        "purpose": "run",
        "action": hashlib.sha256(rfc8785.dumps(step["action"])).hexdigest(),
        "effect": step["effect"],
        "limits": step["limits"],
    }
    return grants(request["capability"], asked | changes, at)


def test_a_program_is_granted_and_sent_with_the_operators_key(octo: Octo, server: FakeServer, keys: Path) -> None:
    server.tell("POST", PATH, 200, report("step.executed", output=output("hello\n", "a warning\n")))
    result = octo(
        "execute", "--executor", server.url, "--timeout", "2.5", "--memory", "64", "--", "echo", "-n", "hello"
    )
    assert result.exit_code == 0
    assert result.stdout == "hello\n"
    assert "a warning" in result.stderr
    request = sent(server)
    assert server.credentials == [f"Bearer {OPERATOR_KEY}"]
    assert set(request) == {"task_id", "step", "capability"}
    assert str(uuid.UUID(request["task_id"])) == request["task_id"]
    assert request["step"]["action"] == {"kind": "command", "pipeline": [["echo", "-n", "hello"]]}
    assert request["step"]["limits"] == {"wall_ms": 2500, "memory_bytes": 64 << 20, "output_bytes": 1 << 20}
    assert msgspec.convert(request["step"], Step).effect == "side_effecting"
    now = datetime.now(UTC)
    assert is_granted(request, now)
    assert not is_granted(request, now, audience="executor"), "it is worth nothing on the bus"
    assert not is_granted(request, now + timedelta(minutes=5))


def test_two_executions_are_two_tasks(octo: Octo, server: FakeServer, keys: Path) -> None:
    server.tell("POST", PATH, 200, report("step.executed"))
    for _ in range(2):
        assert octo("execute", "--executor", server.url, "--", "true").exit_code == 0
    first, second = (body for _, _, _, body in server.requests)
    assert first["task_id"] != second["task_id"]
    assert first["capability"] != second["capability"]


@pytest.mark.parametrize("source", ["action.json", "-"])
def test_an_action_comes_from_a_file_or_stdin(
    octo: Octo, server: FakeServer, keys: Path, tmp_path: Path, source: str
) -> None:
    server.tell("POST", PATH, 200, report("step.executed"))
    action = {"kind": "file", "op": "write", "path": "größe.txt", "text": "ä\n"}
    (tmp_path / "action.json").write_text(json.dumps(action))
    result = octo("execute", "--action", source, "--executor", server.url, stdin=json.dumps(action))
    assert result.exit_code == 0
    assert sent(server)["step"]["action"] == action
    assert is_granted(sent(server), datetime.now(UTC))


def test_json_is_the_answer(octo: Octo, server: FakeServer, keys: Path) -> None:
    answer = report("step.executed")
    server.tell("POST", PATH, 200, answer)
    result = octo("execute", "--json", "--executor", server.url, "--", "true")
    assert json.loads(result.stdout) == answer
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("STEP_FAILED", Exit.FAILED), ("TIMEOUT", Exit.FAILED), ("SANDBOX_UNAVAILABLE", Exit.INFRASTRUCTURE)],
)
def test_a_failure_shows_what_was_said_and_why(
    octo: Octo, server: FakeServer, keys: Path, code: str, exit_code: Exit
) -> None:
    answer = report("step.failed", code=code, message="it went wrong", output=output("so far\n", "oh no\n"))
    server.tell("POST", PATH, 200, answer)
    result = octo("execute", "--executor", server.url, "--", "false")
    assert result.exit_code == exit_code
    assert result.stdout == "so far\n"
    assert "oh no" in result.stderr
    assert f"{code}" in result.stderr
    assert "it went wrong" in result.stderr
    machine = octo("execute", "--json", "--executor", server.url, "--", "false")
    assert (machine.exit_code, json.loads(machine.stdout)) == (exit_code, answer)


def test_a_long_output_says_what_is_left_out(octo: Octo, server: FakeServer, keys: Path) -> None:
    cut = output("begin", tail="end", bytes=99_999, truncated=True)
    server.tell("POST", PATH, 200, report("step.executed", output=cut))
    result = octo("execute", "--executor", server.url, "--", "seq", "20000")
    assert result.stdout == "begin\n… 99999 bytes in all …\nend"


def test_a_terminal_is_not_taken_over(octo: Octo, server: FakeServer, keys: Path) -> None:
    server.tell("POST", PATH, 200, report("step.executed", output=output("\x1b[2Jred\n")))
    assert "\x1b" not in octo("execute", "--executor", server.url, "--", "x").stdout


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "UNAUTHORIZED", Exit.FAILED),
        (403, "CAPABILITY_VIOLATION", Exit.FAILED),
        (409, "REPLAYED", Exit.FAILED),
        (422, "INVALID_REQUEST", Exit.USAGE),
        (503, "SANDBOX_UNAVAILABLE", Exit.INFRASTRUCTURE),
    ],
)
def test_a_refusal_is_told_without_the_key(
    octo: Octo, server: FakeServer, keys: Path, status: int, code: str, exit_code: Exit
) -> None:
    server.refuse("POST", PATH, status, code, "no")
    result = octo("execute", "--executor", server.url, "--", "true")
    assert result.exit_code == exit_code
    assert code in result.stderr
    assert OPERATOR_KEY not in result.output
    assert TOKENS["private_key"].partition("/")[2] not in result.output


def test_something_else_that_answers_is_named(octo: Octo, server: FakeServer, keys: Path) -> None:
    server.tell("POST", PATH, 200, {"status": "ok"})
    result = octo("execute", "--executor", server.url, "--", "true")
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert server.url in result.stderr


def test_without_the_keys_nothing_is_sent(octo: Octo, server: FakeServer, keys: Path) -> None:
    (keys / "operator.key").unlink()
    refused(octo("execute", "--executor", server.url, "--", "true"), "operator.key can't be read")
    (keys / "operator.key").write_text("two\nlines")
    refused(octo("execute", "--executor", server.url, "--", "true"), "doesn't hold the operator's key")
    (keys / "capability.key").chmod(0o644)
    refused(octo("execute", "--executor", server.url, "--", "true"), "chmod 600")
    refused(octo("execute", "--data-dir", "elsewhere", "--", "true"), "--data-dir")
    assert server.requests == []


def refused(result: Result, said: str) -> None:
    assert result.exit_code == Exit.USAGE
    assert said in result.stderr


@pytest.mark.parametrize("action", ["{", "[]", '{"kind": "dance"}', '{"kind": "command"}'])
def test_what_is_no_action_is_refused_here(octo: Octo, keys: Path, tmp_path: Path, action: str) -> None:
    (tmp_path / "action.json").write_text(action)
    assert octo("execute", "--action", "action.json").exit_code == Exit.USAGE
    assert octo("grant", "--action", "action.json").exit_code == Exit.USAGE


def test_either_an_action_or_a_program(octo: Octo, keys: Path) -> None:
    assert octo("execute").exit_code == Exit.USAGE
    assert octo("execute", "--action", "-", "--", "true", stdin="{}").exit_code == Exit.USAGE


def test_nobody_there_is_infrastructure(octo: Octo, keys: Path, closed_port: int) -> None:
    result = octo("execute", "--executor", f"http://127.0.0.1:{closed_port}", "--", "true")
    assert result.exit_code == Exit.INFRASTRUCTURE


def test_grant_prints_the_request(octo: Octo, keys: Path) -> None:
    result = octo("grant", "--", "echo", "hello")
    assert result.exit_code == 0
    assert is_granted(json.loads(result.stdout), datetime.now(UTC))
    assert TOKENS["private_key"].partition("/")[2] not in result.output
