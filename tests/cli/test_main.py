"""The command as a whole: quick to start, one way to tell errors, --json everywhere."""

import json
import subprocess
import sys

import pytest

from octollm.cli import main
from octollm.cli.failure import Exit, Failure
from octollm.events.errors import catalogue
from tests.cli.conftest import FakeServer, Octo

COMMANDS = ["submit", "watch", "ls", "show", "tail", "cancel", "resume", "up", "down", "ps", "logs", "demo", "doctor"]
DLQ = ["dlq ls", "dlq show", "dlq redrive"]
HEAVY = [
    "asyncpg",
    "fastapi",
    "httpx",
    "jsonschema_rs",
    "msgspec",
    "nats",
    "openai",
    "pydantic",
    "structlog",
    "uvicorn",
]


def test_help_needs_nothing_heavy() -> None:
    program = f"import octollm.cli.main, sys; print([m for m in {HEAVY} + ['rich.console'] if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_help_lists_the_commands(octo: Octo) -> None:
    result = octo("--help")
    assert result.exit_code == 0
    assert all(f" {command} " in result.output for command in [*COMMANDS, "dlq"])


@pytest.mark.parametrize("command", [*COMMANDS, *DLQ])
def test_every_command_speaks_json(octo: Octo, command: str) -> None:
    result = octo(*command.split(), "--help", COLUMNS="200")
    assert result.exit_code == 0
    assert "--json" in result.output


@pytest.mark.parametrize("arguments", [["frobnicate"], ["submit"], ["ls", "--limit", "0"], ["up", "--ports", "some"]])
def test_a_command_line_that_makes_no_sense_is_usage(octo: Octo, arguments: list[str]) -> None:
    assert octo(*arguments).exit_code == Exit.USAGE


@pytest.mark.parametrize("info", catalogue().values(), ids=lambda info: info.code.value)
def test_error_codes_end_with_the_exit_code_of_the_list(octo: Octo, server: FakeServer, info: object) -> None:
    code, exit_code, hint = info.code.value, info.exit_code, info.hint  # type: ignore[attr-defined]
    server.refuse("GET", "/api/v1/tasks", 400, code, "what happened")
    result = octo("ls", "--api", server.url)
    assert result.exit_code == exit_code
    assert code in result.stderr
    assert hint in result.stderr


def test_an_unknown_error_code_is_infrastructure(octo: Octo, server: FakeServer) -> None:
    server.refuse("GET", "/api/v1/tasks", 418, "TEAPOT", "of a later version")
    result = octo("ls", "--api", server.url)
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "of a later version" in result.stderr


def test_errors_for_machines_are_one_document_on_stdout(octo: Octo, server: FakeServer) -> None:
    errors = [{"pointer": "/goal", "message": "must not be blank"}]
    server.refuse("POST", "/api/v1/tasks", 422, "INVALID_REQUEST", "the submission is wrong", errors=errors)
    result = octo("submit", " ", "--json", "--api", server.url)
    assert result.exit_code == Exit.USAGE
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "INVALID_REQUEST"
    assert error["errors"] == errors
    assert error["exit_code"] == 2
    assert error["hint"]
    assert result.stderr == ""


def test_nothing_running_says_octo_up(octo: Octo, closed_port: int) -> None:
    result = octo("ls", OCTO_STACK__API_URL=f"http://127.0.0.1:{closed_port}")
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "octo up" in result.stderr


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (500, b"Internal Server Error"), (404, b"{}")])
def test_an_answer_of_something_else_is_infrastructure(
    octo: Octo, server: FakeServer, status: int, body: bytes
) -> None:
    server.tell("GET", "/api/v1/tasks", status, body)
    result = octo("ls", "--api", server.url)
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "isn't OctoLLM" in result.stderr


def test_an_address_that_is_no_url_is_usage(octo: Octo) -> None:
    assert octo("ls", "--api", "localhost:8000").exit_code == Exit.USAGE


def test_a_broken_configuration_is_usage_and_names_the_key(octo: Octo) -> None:
    result = octo("ls", OCTO_STACK__COLOUR="red")
    assert result.exit_code == Exit.USAGE
    assert "OCTO_STACK__COLOUR" in result.stderr


def test_a_defect_is_told_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("somewhere")

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == Exit.INFRASTRUCTURE
    assert "INTERNAL_ERROR" in capsys.readouterr().err


def test_a_failure_names_its_task_once(octo: Octo, server: FakeServer, task_id: str) -> None:
    server.refuse("GET", f"/api/v1/tasks/{task_id}", 404, "NOT_FOUND", f"no task {task_id}", task_id=task_id)
    result = octo("show", task_id, "--api", server.url)
    assert result.exit_code == Failure.of_code("NOT_FOUND", "").exit_code
    assert result.stderr.count(task_id) == 1
