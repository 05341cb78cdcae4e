"""`octo ls`, `octo show`, `octo cancel`: what the REST view knows."""

import json

import msgspec
import pytest

from octollm.cli.failure import Exit
from octollm.events.carrier import ErrorCode
from octollm.projections.rows import AttemptStatus, Phase, Status
from octollm.projections.views import StepSummary, TaskError
from tests.cli.conftest import FakeServer, Octo
from tests.cli.record import NOON, TASKS, attempt, example, failed_task, task, tell, tell_list

ONE = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
OTHER = "3f2b9999-5d5b-4c0a-9a58-0d6e3a1f7b21"


def test_ls_lists_tasks(octo: Octo, server: FakeServer) -> None:
    running = task(OTHER, status=Status.IN_PROGRESS, phase=Phase.EXECUTING, goal="Count [EMAIL_1]", duration_ms=None)
    tell_list(server, running, failed_task(ONE, "TIMEOUT", "too slow"))
    result = octo("ls", "--api", server.url)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any("3f2b9999" in line and "in_progress (executing)" in line and "[EMAIL_1]" in line for line in lines)
    assert any("3f2b8c1e" in line and "failed TIMEOUT" in line and "48 ms" in line for line in lines)


def test_ls_json_is_one_document(octo: Octo, server: FakeServer) -> None:
    tell_list(server, task(ONE))
    assert json.loads(octo("ls", "--json", "--api", server.url).stdout)["tasks"][0]["task_id"] == ONE


def test_ls_passes_filters_on(octo: Octo, server: FakeServer) -> None:
    tell_list(server)
    octo("ls", "--status", "failed", "--status", "rejected", "-n", "7", "--min-seq", "9", "--api", server.url)
    [(_, _, query, _)] = server.requests
    assert query == {"status": ["failed", "rejected"], "limit": ["7"], "min_seq": ["9"], "wait": ["10"]}


def test_ls_reads_as_many_pages_as_it_needs(octo: Octo, server: FakeServer) -> None:
    tell_list(server, task(ONE))
    page = server.answers["GET", TASKS][1]
    server.tell("GET", TASKS, 200, page | {"next_cursor": "more"})
    assert len(json.loads(octo("ls", "-n", "3", "--json", "--api", server.url).stdout)["tasks"]) == 3
    assert [query.get("cursor") for _, _, query, _ in server.requests] == [None, ["more"], ["more"]]


def test_an_empty_list_says_so(octo: Octo, server: FakeServer) -> None:
    tell_list(server)
    result = octo("ls", "--api", server.url)
    assert result.exit_code == 0
    assert "no task" in result.stderr


def test_show_tells_plan_result_and_criteria(octo: Octo, server: FakeServer) -> None:
    tell(server, task(ONE), attempt())
    result = octo("show", ONE, "--api", server.url)
    assert result.exit_code == 0
    for said in ("plan 1: 1 step(s) by caller", "✓ Echo the text", "completed after 48 ms", "(machine)", "hello world"):
        assert said in result.stdout


def test_show_says_that_a_placeholder_is_literal(octo: Octo, server: FakeServer) -> None:
    tell(server, task(ONE, goal="Write to [EMAIL_1]"))
    shown = octo("show", ONE, "--api", server.url).stdout
    assert "[EMAIL_1] is a literal placeholder: the vault is off" in shown


def test_a_placeholder_that_was_typed_is_none(octo: Octo, server: FakeServer) -> None:
    received = example("task.received")
    tell(
        server, task(ONE, goal="Echo [EMAIL_1]"), first=received | {"verdict": received["verdict"] | {"redactions": []}}
    )
    assert "literal placeholder" not in octo("show", ONE, "--api", server.url).stdout


def test_show_of_a_failed_step_has_code_output_and_hint(octo: Octo, server: FakeServer) -> None:
    error = TaskError(code=ErrorCode.STEP_FAILED, message="exit code 2", hint="", reasons=msgspec.Raw(b"[]"))
    broken = attempt(status=AttemptStatus.FAILED, error=error, exit_code=2)
    summary = StepSummary(total=1, done=0, running=[])
    tell(server, failed_task(ONE, "STEP_FAILED", "step echo failed", steps=summary), broken)
    shown = octo("show", ONE, "--api", server.url).stdout
    assert "✗ Echo the text" in shown
    assert "STEP_FAILED  exit code 2" in shown
    assert "│ hello world" in shown
    assert "→ Read its output" in shown


def test_show_tells_every_attempt(octo: Octo, server: FakeServer) -> None:
    error = TaskError(code=ErrorCode.SANDBOX_UNAVAILABLE, message="no namespaces", hint="", reasons=msgspec.Raw(b"[]"))
    tell(server, task(ONE), attempt(status=AttemptStatus.FAILED, error=error), attempt(attempt=2, seq=11))
    shown = octo("show", ONE, "--api", server.url).stdout
    assert "✓ Echo the text" in shown
    assert "attempt 2\n" in shown
    assert "attempt 1: SANDBOX_UNAVAILABLE  no namespaces" in shown
    assert "→" not in shown, "what was mended needs no advice"


def test_show_json_holds_task_plan_and_steps(octo: Octo, server: FakeServer) -> None:
    tell(server, task(ONE), attempt(), attempt(attempt=2, seq=11))
    record = json.loads(octo("show", ONE, "--json", "--api", server.url).stdout)
    assert record["task"]["task_id"] == ONE
    assert record["plan"]["provider"] == "caller"
    assert [step["attempt"] for step in record["steps"]] == [1, 2]
    assert record["placeholders"] == ["[EMAIL_1]"]


def test_show_of_a_rejected_task_asks_for_no_plan(octo: Octo, server: FakeServer) -> None:
    reasons = msgspec.Raw(b'[{"field": "/goal", "message": "overrides instructions"}]')
    error = TaskError(code=ErrorCode.INJECTION_BLOCKED, message="blocked", hint="", reasons=reasons)
    shown = task(ONE, status=Status.REJECTED, goal=None, plan_version=None, error=error, result=None, duration_ms=None)
    tell(server, shown, first=example("task.rejected"))
    result = octo("show", ONE, "--api", server.url)
    assert result.exit_code == 0
    assert "rejected" in result.stdout
    assert "/goal: overrides instructions" in result.stdout
    assert not any(path.endswith("/plan") for _, path, _, _ in server.requests)


def test_show_after_a_submit_waits_for_the_view(octo: Octo, server: FakeServer) -> None:
    tell(server, task(ONE))
    octo("show", ONE, "--min-seq", "12", "--api", server.url)
    assert server.requests[0][2] == {"min_seq": ["12"], "wait": ["10"]}


def test_the_beginning_of_an_id_is_enough(octo: Octo, server: FakeServer) -> None:
    tell_list(server, task(ONE), task(OTHER))
    tell(server, task(ONE))
    assert json.loads(octo("show", "3F2B8", "--json", "--api", server.url).stdout)["task"]["task_id"] == ONE


def test_a_beginning_of_two_ids_is_refused(octo: Octo, server: FakeServer) -> None:
    tell_list(server, task(ONE), task(OTHER))
    result = octo("show", "3f2b", "--api", server.url)
    assert result.exit_code == Exit.USAGE
    assert ONE in result.stderr
    assert OTHER in result.stderr


def test_a_beginning_of_no_id_is_not_found(octo: Octo, server: FakeServer) -> None:
    tell_list(server, task(ONE))
    result = octo("show", "aaaa", "--api", server.url)
    assert result.exit_code == Exit.FAILED
    assert "NOT_FOUND" in result.stderr


@pytest.mark.parametrize("text", ["xyz", "", "../tasks", "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21-and-more"])
def test_what_is_no_id_is_usage(octo: Octo, server: FakeServer, text: str) -> None:
    assert octo("show", text, "--api", server.url).exit_code == Exit.USAGE
    assert server.requests == []


@pytest.fixture
def cancelling(server: FakeServer) -> FakeServer:
    server.tell("POST", f"{TASKS}/{ONE}/cancel", 202, {"task_id": ONE, "status": "cancel_requested"})
    return server


def test_cancel_sends_the_reason(octo: Octo, cancelling: FakeServer) -> None:
    tell(cancelling, task(ONE, status=Status.IN_PROGRESS, finished_at=None))
    result = octo("cancel", ONE, "--reason", "wrong folder", "--api", cancelling.url)
    assert result.exit_code == 0
    assert cancelling.requests[-1] == ("POST", f"{TASKS}/{ONE}/cancel", {}, {"reason": "wrong folder"})


def test_resume_sends_the_note(octo: Octo, server: FakeServer) -> None:
    server.tell("POST", f"{TASKS}/{ONE}/resume", 202, {"task_id": ONE, "status": "resume_requested"})
    tell(server, task(ONE, status=Status.IN_PROGRESS, finished_at=None))
    result = octo("resume", ONE, "--note", "mended", "--api", server.url)
    assert result.exit_code == 0
    assert server.requests[-1] == ("POST", f"{TASKS}/{ONE}/resume", {}, {"note": "mended"})


def test_resume_of_an_ended_task_changes_nothing(octo: Octo, server: FakeServer) -> None:
    tell(server, task(ONE))
    result = octo("resume", ONE, "--api", server.url)
    assert result.exit_code == Exit.FAILED
    assert [method for method, *_ in server.requests] == ["GET"]


def test_cancel_of_an_unknown_task(octo: Octo, cancelling: FakeServer) -> None:
    cancelling.refuse("GET", f"{TASKS}/{ONE}", 404, "NOT_FOUND", "no such task", task_id=ONE)
    result = octo("cancel", ONE, "--api", cancelling.url)
    assert result.exit_code == Exit.FAILED
    assert "NOT_FOUND" in result.stderr
    assert [method for method, *_ in cancelling.requests] == ["GET"]


def test_cancel_of_an_ended_task_changes_nothing(octo: Octo, cancelling: FakeServer) -> None:
    tell(cancelling, task(ONE))
    result = octo("cancel", ONE, "--api", cancelling.url)
    assert result.exit_code == Exit.FAILED
    assert "completed" in result.stderr
    assert [method for method, *_ in cancelling.requests] == ["GET"]


def test_cancel_does_not_depend_on_the_view(octo: Octo, cancelling: FakeServer, closed_port: int) -> None:
    view = f"http://127.0.0.1:{closed_port}"
    result = octo("cancel", ONE, "--json", OCTO_STACK__API_URL=view, OCTO_STACK__REFLEX_URL=cancelling.url)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"task_id": ONE, "status": "cancel_requested"}


def test_a_step_that_runs_has_no_time_yet(octo: Octo, server: FakeServer) -> None:
    running = attempt(status=AttemptStatus.RUNNING, usage=None, output=None, ended_at=None, dispatched_at=NOON)
    tell(server, task(ONE, status=Status.IN_PROGRESS, phase=Phase.EXECUTING, result=None, finished_at=None), running)
    shown = octo("show", ONE, "--api", server.url).stdout
    assert "● Echo the text" in shown
    assert "completed" not in shown
