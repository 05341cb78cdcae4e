"""`octo dlq` on a stack with accounts: what a service gives up is found, and a redrive brings the task to its end."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from nats.aio.client import Client

from octollm.cli import dead_letters, stack_checks
from octollm.cli.dead_letters import DeadLetter, State
from octollm.cli.failure import Exit
from octollm.cli.finding import Verdict
from octollm.events import bus
from octollm.events.carrier import TaskResume
from octollm.events.config import NatsSettings
from octollm.events.consumer import ATTEMPTS, Consumer, Delivery, Settled, Unreadable
from octollm.events.direct import DirectGetDenied
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import Log
from octollm.planner.intake import Intake
from octollm.planner.planning import Planning
from octollm.stack import SERVICES, Stack, StackOptions
from tests.cli.test_lifecycle import octo
from tests.planner.tasks import received

DEADLINE_S = 60.0

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A broker with accounts, and all that carries a task on, but for the planner: that is the test's own."""
    options = StackOptions(
        data_dir=tmp_path_factory.mktemp("stack") / ".octo",
        ports="free",
        servers=frozenset({"nats", "valkey"}),
        services=tuple(row for row in SERVICES if row.name in ("reflex", "orchestrator", "executor")),
    )
    async with Stack(options) as running:
        yield running


@asynccontextmanager
async def account(stack: Stack, name: str) -> AsyncIterator[Client]:
    client = await bus.connect(NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file(name)), name)
    try:
        yield client
    finally:
        await client.close()


async def command(stack: Stack, *arguments: str) -> tuple[int, Any]:
    """Exit code and JSON answer of `octo` beside the stack."""
    code, out, err = await octo(stack.data_dir.parent, *arguments, "--json")
    assert out, err
    return code, json.loads(out)


async def submit(stack: Stack, count: int = 1) -> list[str]:
    tasks = [str(uuid.uuid4()) for _ in range(count)]
    async with account(stack, "reflex") as client:
        for task_id in tasks:
            new = NewEvent(payload=received("Echo hello"), causation_id=task_id)
            await Log(client, "reflex").append(task_id, new, Position.START)
    return tasks


async def until_ended(log: Log, task_id: str) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            events = await log.read(task_id)
            if events and events[-1].terminal:
                return events
            await asyncio.sleep(0.05)


async def give_up(client: Client, work: Callable[[Delivery], Awaitable[None]], count: int) -> None:
    """The planner's consumer with a handler of the test's, until so many deliveries are given up."""
    consumer = Consumer(client, "EVENTS", "planner")
    async with asyncio.timeout(DEADLINE_S):
        async for delivery in consumer:
            settlement = await delivery.settle(work)
            count -= settlement.outcome is Settled.GIVEN_UP
            if not count:
                break
    await consumer.close()


async def test_what_is_given_up_is_found_redriven_and_ends(stack: Stack) -> None:
    assert await command(stack, "dlq", "ls") == (0, {"dead_letters": []})
    code, out, _ = await octo(stack.data_dir.parent, "dlq", "ls")
    assert (code, out.strip()) == (0, "nothing was given up")
    code, answer = await command(stack, "dlq", "redrive", "--all")
    assert (code, answer) == (0, {"resumed": []})

    [unlucky, unreadable, *others] = tasks = await submit(stack, 22)

    async def defective(delivery: Delivery) -> None:
        if delivery.subject.endswith(unlucky):
            raise RuntimeError("ada@example.org")
        if delivery.subject.endswith(unreadable):
            raise Unreadable("of a version that is not known")
        await healthy._settle(delivery)

    async with account(stack, "planner") as client, account(stack, "operator") as operator:
        log = Log(operator, "operator")
        healthy = Intake(client, Log(client, "planner"), Planning(), 8)
        await give_up(client, defective, 2)
        for task_id in others:
            assert (await until_ended(log, task_id))[-1].kind == "task.completed"

        _, listed = await command(stack, "dlq", "ls")
        letters = {letter["task_id"]: letter for letter in listed["dead_letters"]}
        assert letters.keys() == {unlucky, unreadable}
        letter = letters[unlucky]
        assert (letter["service"], letter["fact"], letter["state"]) == ("planner", "task.received", "open")
        assert letter["deliveries"] == ATTEMPTS
        assert letter["reason"].startswith("RuntimeError in defective (test_dead_letters.py:")
        assert letters[unreadable]["deliveries"] == 1
        assert letters[unreadable]["reason"] == "Unreadable: of a version that is not known"
        code, out, err = await octo(stack.data_dir.parent, "dlq", "ls")
        assert "2 open" in err
        assert unlucky[:8] in out
        code, out, err = await octo(stack.data_dir.parent, "dlq", "show", str(letter["number"]))
        assert "has the planner asked for it again" in out
        assert '"goal": "Echo hello"' in out
        settings = NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file("operator"))
        [finding] = [one async for one in stack_checks.broker(settings) if one.name == "dead letters"]
        assert (finding.verdict, finding.fix) == (Verdict.NOTE, "octo dlq ls")

        stopping = asyncio.Event()
        planning = asyncio.create_task(healthy.run(stopping))
        code, answer = await command(stack, "dlq", "redrive", str(letter["number"]))
        assert (code, answer) == (0, {"resumed": [unlucky]})
        events = await until_ended(log, unlucky)
        assert [event.kind for event in events[:3]] == ["task.received", "plan.requested", "task.planned"]
        assert events[-1].kind == "task.completed"
        _, answer = await command(stack, "dlq", "redrive", "--all")
        assert answer == {"resumed": [unreadable]}
        assert (await until_ended(log, unreadable))[-1].kind == "task.completed"
        stopping.set()
        await planning

        states = {one.state for one in await dead_letters.newest(operator, 100)}
        assert states == {State.ENDED}
        code, answer = await command(stack, "dlq", "redrive", str(letter["number"]))
        assert (code, answer["error"]["code"]) == (Exit.FAILED, "CONFLICT")
        assert [one async for one in stack_checks.broker(settings) if one.name == "dead letters"] == []
        for task_id in tasks:
            ends = [event for event in await log.read(task_id) if event.terminal]
            assert len(ends) == 1


async def test_a_command_that_was_given_up_is_gone_and_says_so(stack: Stack) -> None:
    async with account(stack, "operator") as operator:
        await operator.request("task.cancel", b"{}", timeout=5)

        async def given_up() -> DeadLetter:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    letters = await dead_letters.newest(operator, 1)
                    if letters and letters[0].stream == "COMMANDS":
                        return letters[0]
                    await asyncio.sleep(0.05)

        letter = await given_up()
    assert (letter.service, letter.fact, letter.state) == ("orchestrator", "task.cancel", State.GONE)
    assert letter.reason.startswith("Unreadable: task.cancel breaks its schema")
    code, answer = await command(stack, "dlq", "redrive", str(letter.number))
    assert (code, answer["error"]["code"]) == (Exit.FAILED, "CONFLICT")
    assert "octo cancel TASK" in answer["error"]["detail"]


async def test_a_number_that_nobody_has_and_no_number_at_all(stack: Stack) -> None:
    code, answer = await command(stack, "dlq", "show", "9999")
    assert (code, answer["error"]["code"]) == (Exit.FAILED, "NOT_FOUND")
    code, _, err = await octo(stack.data_dir.parent, "dlq", "redrive")
    assert code == Exit.USAGE
    assert "one number, or --all" in err


async def test_only_the_operator_reads_what_was_given_up(stack: Stack) -> None:
    async with account(stack, "planner") as client:
        with pytest.raises(DirectGetDenied):
            await dead_letters.newest(client, 1)


async def test_a_resume_by_the_bus_is_a_resume(stack: Stack) -> None:
    [task_id] = await submit(stack)
    body = msgspec.json.encode(TaskResume(task_id=task_id, requested_by="operator"))
    async with account(stack, "operator") as operator:
        await operator.request("task.resume", body, timeout=5)
        log = Log(operator, "operator")
        async with asyncio.timeout(DEADLINE_S):
            while (events := await log.read(task_id))[-1].kind != "plan.requested":
                await asyncio.sleep(0.05)
    assert [event.kind for event in events] == ["task.received", "plan.requested"]
