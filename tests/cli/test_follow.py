"""`octo watch` and `octo tail`: what the log holds and what comes, on a real broker."""

import asyncio
import json
import uuid
from collections.abc import Callable
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import Result

from octollm.cli.failure import Exit
from octollm.cli.task_view import TaskView
from octollm.cli.terminal import Terminal
from octollm.cli.watching import follow_task
from octollm.events import bus
from octollm.events.carrier import ErrorCode, StepDispatched, StepExecuted, TaskCompleted, TaskPlanned, TaskReceived
from octollm.events.config import NatsSettings
from octollm.events.envelope import NewEvent, Position
from octollm.events.log import Log
from octollm.events.payload import Payload
from tests.cli.conftest import Octo
from tests.cli.record import example
from tests.projections import story

Run = Callable[..., Any]


@pytest.fixture
def follow(octo: Octo, nats_url: str) -> Run:
    """`octo` in a thread of its own, on the test's broker."""

    async def run(*arguments: str, **environment: str) -> Result:
        return await asyncio.to_thread(octo, *arguments, "--nats", nats_url, **environment)

    return run


class Writer:
    """Appends a task's events, one after the other."""

    def __init__(self, client: bus.Client, task_id: str) -> None:
        self._log = Log(client, "test")
        self.task_id = task_id
        self.position = Position.START
        self._cause = task_id

    async def add(self, *payloads: Payload) -> None:
        for payload in payloads:
            event = await self._log.append(
                self.task_id, NewEvent(payload=payload, causation_id=self._cause, key=""), self.position
            )
            self.position, self._cause = event.position, event.id


@pytest.fixture
def writer(nats: bus.Client, task_id: str) -> Writer:
    return Writer(nats, task_id)


def message(kind: str, carrier: type[Payload]) -> Payload:
    return msgspec.convert(example(kind), carrier)


RECEIVED = message("task.received", TaskReceived)
PLANNED = message("task.planned", TaskPlanned)
DISPATCHED = message("step.dispatched", StepDispatched)
EXECUTED = message("step.executed", StepExecuted)
COMPLETED = message("task.completed", TaskCompleted)
WHOLE = (RECEIVED, PLANNED, DISPATCHED, EXECUTED, COMPLETED)


async def test_watch_of_an_ended_task_tells_it_all(follow: Run, writer: Writer) -> None:
    await writer.add(*WHOLE)
    result = await follow("watch", writer.task_id)
    assert result.exit_code == Exit.DONE
    for said in ("task.received", "[EMAIL_1] is a literal placeholder", "✓ Echo the text", "completed after 48 ms"):
        assert said in result.stdout
    assert result.stdout.rstrip().endswith("hello world")


async def test_watch_waits_for_the_end(follow: Run, writer: Writer) -> None:
    await writer.add(RECEIVED, PLANNED)
    watching = asyncio.create_task(follow("watch", writer.task_id, "--json", "--wait", "30"))
    await writer.add(DISPATCHED, EXECUTED, COMPLETED)
    result = await watching
    assert result.exit_code == Exit.DONE
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["headers"]["ce-taskversion"] for event in events] == ["1", "2", "3", "4", "5"]
    assert events[-1]["subject"] == f"task.completed.{writer.task_id}"
    assert events[-1]["payload"]["result"]["output"] == "hello world\n"


async def test_watch_that_has_to_stop_is_exit_4(follow: Run, writer: Writer) -> None:
    await writer.add(RECEIVED)
    result = await follow("watch", writer.task_id, "--wait", "0.3")
    assert result.exit_code == Exit.WAITING
    assert f"octo watch {writer.task_id}" in result.stderr


async def test_watch_of_an_unknown_task(follow: Run, task_id: str) -> None:
    result = await follow("watch", task_id, "--json")
    assert result.exit_code == Exit.FAILED
    assert json.loads(result.stdout)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("last", "exit_code", "said"),
    [
        (story.failed(), Exit.FAILED, "TIMEOUT"),
        (story.failed(code=ErrorCode.BUDGET_EXCEEDED), Exit.BUDGET, "BUDGET_EXCEEDED"),
        (story.failed(code=ErrorCode.ARM_UNAVAILABLE), Exit.INFRASTRUCTURE, "octo ps"),
        (story.cancelled(), Exit.CANCELLED, "cancelled by"),
    ],
    ids=["failed", "budget", "infrastructure", "cancelled"],
)
async def test_watch_ends_as_the_task_does(
    follow: Run, writer: Writer, last: Payload, exit_code: int, said: str
) -> None:
    await writer.add(RECEIVED, PLANNED, DISPATCHED, last)
    result = await follow("watch", writer.task_id)
    assert result.exit_code == exit_code
    assert said in result.stdout
    assert "– Echo the text" in result.stdout


async def test_watch_of_a_rejected_task_is_exit_3(follow: Run, writer: Writer) -> None:
    await writer.add(story.rejected(code=ErrorCode.INJECTION_BLOCKED))
    result = await follow("watch", writer.task_id)
    assert result.exit_code == Exit.REJECTED


async def test_a_failed_step_is_told_with_what_to_do(follow: Run, writer: Writer) -> None:
    await writer.add(RECEIVED, PLANNED, DISPATCHED, story.step_failed("echo"), story.failed())
    result = await follow("watch", writer.task_id)
    assert "✗ Echo the text" in result.stdout
    assert "TIMEOUT  the step ran longer than 1000 ms" in result.stdout
    assert "→ Raise the limit" in result.stdout


async def test_every_attempt_is_told_and_a_late_result_changes_nothing(follow: Run, writer: Writer) -> None:
    silent = story.step_failed("echo", code=ErrorCode.ARM_UNAVAILABLE, message="arm executor did not report in time")
    again, late = story.dispatched("echo", attempt=2), story.step_failed("echo")
    await writer.add(RECEIVED, PLANNED, DISPATCHED, silent, again, late, story.executed("echo", attempt=2), COMPLETED)
    told = (await follow("watch", writer.task_id)).stdout
    assert "echo (attempt 2): echo hello world" in told
    shown = told[told.rindex("  plan 1: ") :]
    assert "✓ Echo the text" in shown
    assert "attempt 2\n" in shown
    assert "attempt 1: ARM_UNAVAILABLE  arm executor did not report in time" in shown
    assert "TIMEOUT" not in shown


async def test_on_a_terminal_the_plan_is_redrawn(nats_url: str, writer: Writer) -> None:
    terminal, screen = Terminal(False), StringIO()
    terminal.out = Console(file=screen, force_terminal=True, width=120)
    view = TaskView(writer.task_id)
    await writer.add(RECEIVED, PLANNED, DISPATCHED)
    watching = asyncio.create_task(follow_task(terminal, NatsSettings(url=nats_url), view, 30))
    async with asyncio.timeout(30):
        while "●" not in screen.getvalue():
            await asyncio.sleep(0.01)
    await writer.add(EXECUTED, COMPLETED)
    assert await watching == Exit.DONE
    drawn = screen.getvalue()
    assert drawn.index("● ") < drawn.index("✓ ") < drawn.index("completed")
    assert "task.received" not in drawn


async def test_tail_of_a_task_until_its_end(follow: Run, writer: Writer) -> None:
    await writer.add(RECEIVED, PLANNED)
    tailing = asyncio.create_task(follow("tail", "--task", writer.task_id, "--until-end"))
    await writer.add(DISPATCHED, EXECUTED, COMPLETED)
    lines = (await tailing).stdout.splitlines()
    assert [line.split()[2] for line in lines] == [
        "task.received",
        "task.planned",
        "step.dispatched",
        "step.executed",
        "task.completed",
    ]
    assert all(writer.task_id[:8] in line for line in lines)
    assert "echo: echo hello world" in lines[2]


async def test_tail_of_kinds(follow: Run, writer: Writer) -> None:
    await writer.add(*WHOLE)
    for kinds, found in ((["step"], 2), (["step.executed", "step.*"], 2), (["task.completed"], 1), (["plan"], 0)):
        flags = [word for kind in kinds for word in ("--kind", kind)]
        result = await follow("tail", "--task", writer.task_id, "--no-follow", *flags, "--json")
        assert len(result.stdout.splitlines()) == found, kinds


async def test_tail_follows_kinds_of_all_tasks(follow: Run, nats: bus.Client) -> None:
    first, second = (Writer(nats, str(uuid.uuid4())) for _ in range(2))
    await first.add(*WHOLE)
    await second.add(*WHOLE)
    result = await follow(
        "tail", "--kind", "task.completed", "--since", str(first.position.seq), "--no-follow", "--json"
    )
    seen = {json.loads(line)["subject"] for line in result.stdout.splitlines()}
    assert {f"task.completed.{first.task_id}", f"task.completed.{second.task_id}"} <= seen


async def test_tail_since_a_sequence_and_no_further_than_the_end(follow: Run, writer: Writer) -> None:
    await writer.add(*WHOLE)
    result = await follow("tail", "--since", str(writer.position.seq), "--no-follow", "--json")
    assert json.loads(result.stdout.splitlines()[0])["seq"] == writer.position.seq
    beyond = await follow("tail", "--since", str(10**9), "--no-follow", "--json")
    assert beyond.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["--until-end"], ["--kind", "robot"], ["--kind", "step.executed.x"], ["--since", "0"]]
)
async def test_tail_of_nonsense_is_usage(follow: Run, arguments: list[str]) -> None:
    assert (await follow("tail", *arguments)).exit_code == Exit.USAGE


@pytest.mark.parametrize("command", [["watch"], ["tail", "--task"]])
def test_no_broker_says_octo_up(octo: Octo, closed_port: int, task_id: str, command: list[str]) -> None:
    url = f"nats://user:secret@127.0.0.1:{closed_port}"
    result = octo(*command, task_id, "--nats", url)
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "octo up" in result.stderr
    assert "secret" not in result.stderr


def test_an_address_that_is_no_broker_is_usage(octo: Octo, task_id: str) -> None:
    assert octo("watch", task_id, "--nats", "nats://127.0.0.1:seven").exit_code == Exit.USAGE
