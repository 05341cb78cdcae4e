"""Whole tasks through the runner on a real broker, with arms that do what the test says."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import pytest
import pytest_asyncio
from msgspec import structs
from prometheus_client import REGISTRY

from octollm.events import bus
from octollm.events.carrier import Decision1 as ApprovalDecision
from octollm.events.carrier import (
    ErrorCode,
    Retry,
    StepDispatched,
    StepFailed,
    TaskApprove,
    TaskCancelRequested,
    TaskCompleted,
    TaskFailed,
    TaskResume,
)
from octollm.events.consumer import Consumer
from octollm.events.envelope import Event, NewEvent, Position
from octollm.events.log import Conflict, Log
from octollm.events.payload import Payload
from tests.orchestrator.arms import Arms, Crash, FailingLog, Script, orchestrator, until, until_ended
from tests.orchestrator.history import executed, failed, plan_failed, planned, received, step

LINE = planned(step("a"), step("b", "a"), step("c", "b"))
DIAMOND = planned(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
WIDE = planned(step("a"), step("b"), step("c"))
ONE = planned(step("a"))
NINE = ["task.received", "task.planned", *["step.dispatched", "step.executed"] * 3, "task.completed"]


@pytest_asyncio.fixture
async def arms(nats: bus.Client) -> AsyncIterator[Arms]:
    async with Arms(nats) as running:
        yield running


@pytest.fixture
def log(nats: bus.Client) -> Log:
    return Log(nats, "orchestrator")


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"octollm_orchestrator_{name}", labels) or 0.0


def _counted_more(case: tuple[str, str], count: float) -> bool:
    return counted("commands_total", command=case[0], outcome=case[1]) > count


async def _has(log: Log, task_id: str, count: int) -> bool:
    return len(await log.read(task_id)) == count


async def hang(step_id: str) -> Payload | None:
    await asyncio.Event().wait()
    return None


async def silent(step_id: str) -> Payload | None:
    return None


async def test_a_line_of_three_steps_is_nine_events(nats_url: str, arms: Arms, log: Log, task_id: str) -> None:
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(LINE))
        events = await until_ended(log, task_id)
    assert kinds(events) == NINE
    completed = events[-1].payload
    assert isinstance(completed, TaskCompleted)
    assert completed.result.output == "c\n"
    elapsed = events[-2].stored_at - events[0].stored_at
    assert completed.result.total_duration_ms == elapsed.total_seconds() * 1000 // 1


async def test_steps_that_do_not_depend_on_each_other_run_at_once(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    started = {name: asyncio.Event() for name in "abcd"}

    async def act(step_id: str) -> Payload | None:
        started[step_id].set()
        if step_id in "bc":
            # Neither ends before the other has started.
            await asyncio.gather(started["b"].wait(), started["c"].wait())
        return executed(step_id, step_id)

    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(DIAMOND, act))
        events = await until_ended(log, task_id)
    assert events[-1].kind == "task.completed"
    assert len(events) == 11


async def test_a_failed_step_lets_the_others_settle_and_fails_the_task(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    c_runs = asyncio.Event()

    async def b_has_failed() -> bool:
        return (await log.read(task_id))[-1].kind == "step.failed"

    async def act(step_id: str) -> Payload | None:
        if step_id == "b":
            await c_runs.wait()
            return failed("b", ErrorCode.OOM_KILLED, "used more than 512 MiB")
        if step_id == "c":
            c_runs.set()
            await until(b_has_failed, "b's failure is on record")
        return executed(step_id)

    script = Script(DIAMOND, act)
    async with orchestrator(nats_url):
        await arms.submit(task_id, script)
        events = await until_ended(log, task_id)
    ended = events[-1].payload
    assert isinstance(ended, TaskFailed)
    assert (ended.code, ended.step_id) == (ErrorCode.OOM_KILLED, "b")
    assert ended.spent.steps_executed == 2
    assert sorted(script.steps_seen) == ["a", "b", "c"]


async def test_no_plan_fails_the_task(nats_url: str, arms: Arms, log: Log, task_id: str) -> None:
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(plan_failed(ErrorCode.LLM_UNAVAILABLE)))
        events = await until_ended(log, task_id)
    assert kinds(events) == ["task.received", "plan.failed", "task.failed"]


async def test_a_cancel_reaches_the_running_steps_and_ends_the_task(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    script = Script(WIDE, hang)
    async with orchestrator(nats_url):
        await arms.submit(task_id, script)
        await until(lambda: len(script.steps_seen) == 3, "all steps run")
        await arms.cancel(task_id)
        await arms.cancel(task_id, "and once more")
        events = await until_ended(log, task_id)
        await arms.cancel(task_id, "too late")
        await until(lambda: counted("commands_total", command="task.cancel", outcome="nothing_to_do") > 0, "an answer")
    assert kinds(events)[5:] == ["task.cancel_requested", *["step.failed"] * 3, "task.cancelled"]
    assert await log.read(task_id) == events


async def test_a_cancel_gives_a_silent_arm_up_after_the_grace(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    script = Script(ONE, silent)
    async with orchestrator(nats_url, grace=0.3):
        await arms.submit(task_id, script)
        await until(lambda: script.steps_seen == ["a"], "the step was taken")
        await arms.cancel(task_id)
        events = await until_ended(log, task_id)
    assert kinds(events)[3:] == ["task.cancel_requested", "step.failed", "task.cancelled"]


async def test_a_silent_arm_is_given_up_after_the_steps_time_and_the_grace(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    async with orchestrator(nats_url, grace=0.3):
        await arms.submit(task_id, Script(planned(step("a", wall_ms=200)), silent))
        events = await until_ended(log, task_id)
    assert kinds(events)[2:] == ["step.dispatched", "step.failed", "task.failed"]
    given_up, ended = events[3], events[4].payload
    assert isinstance(given_up.payload, StepFailed)
    assert given_up.payload.code == ErrorCode.ARM_UNAVAILABLE
    assert (given_up.stored_at - events[2].stored_at).total_seconds() >= 0.5
    assert isinstance(ended, TaskFailed)
    assert (ended.code, ended.step_id) == (ErrorCode.ARM_UNAVAILABLE, "a")


async def test_the_time_budget_ends_planning(nats_url: str, arms: Arms, log: Log, task_id: str) -> None:
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(None), seconds=1)
        events = await until_ended(log, task_id)
    assert kinds(events) == ["task.received", "task.failed"]
    assert isinstance(events[-1].payload, TaskFailed)
    assert events[-1].payload.code == ErrorCode.TIMEOUT
    assert (events[1].stored_at - events[0].stored_at).total_seconds() >= 1


async def test_the_time_budget_ends_running_steps(nats_url: str, arms: Arms, log: Log, task_id: str) -> None:
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(WIDE, hang), seconds=1)
        events = await until_ended(log, task_id)
    assert kinds(events)[5:] == [*["step.failed"] * 3, "task.failed"]
    assert all(event.data["code"] == "TIMEOUT" for event in events[5:])
    assert "step_id" not in events[-1].data, "no step decided it"


@pytest.mark.parametrize("point", ["before step.dispatched b", "after step.dispatched b", "after step.dispatched c"])
async def test_a_crash_amid_parallel_dispatches_loses_and_repeats_none(
    nats_url: str, arms: Arms, log: Log, task_id: str, point: str
) -> None:
    crashing: list[FailingLog] = []

    def failing(client: bus.Client) -> Log:
        crashing.append(FailingLog(client, {point: Crash()}))
        return crashing[0]

    # Nothing may go on until the orchestrator is back: the steps wait for it.
    back = asyncio.Event()

    async def act(step_id: str) -> Payload | None:
        await back.wait()
        return executed(step_id, step_id)

    looks = counted("recoveries_total", outcome="done")
    async with orchestrator(nats_url, log=failing):
        # Else the look at the log's open tasks may be what crashes.
        await until(lambda: counted("recoveries_total", outcome="done") > looks, "the look at the start is over")
        await arms.submit(task_id, Script(WIDE, act))
        await until(lambda: not crashing[0].left, point)
    dispatched = len(await log.read(task_id)) - 2
    assert (
        dispatched == {"before step.dispatched b": 1, "after step.dispatched b": 2, "after step.dispatched c": 3}[point]
    )
    async with orchestrator(nats_url):
        back.set()
        events = await until_ended(log, task_id)
    assert sorted(kinds(events)) == sorted(NINE)


@pytest.mark.parametrize("point", ["before task.completed", "after task.completed"])
async def test_a_failure_is_tried_again_and_stops_no_other_task(
    nats_url: str, arms: Arms, log: Log, task_id: str, point: str
) -> None:
    other = str(uuid.uuid4())
    before = counted("handler_failures_total", stream="EVENTS", error="RuntimeError")
    failpoints = {point: RuntimeError("injected")}
    looks = counted("recoveries_total", outcome="done")
    async with orchestrator(nats_url, log=lambda client: FailingLog(client, failpoints)):
        # Else the look at the log's open tasks may be what fails.
        await until(lambda: counted("recoveries_total", outcome="done") > looks, "the look at the start is over")
        await arms.submit(task_id, Script(LINE))
        await arms.submit(other, Script(LINE))
        for name in (task_id, other):
            assert kinds(await until_ended(log, name)) == NINE
        await until(
            lambda: counted("handler_failures_total", stream="EVENTS", error="RuntimeError") == before + 1, "a count"
        )


async def test_a_redelivered_event_changes_nothing(nats_url: str, arms: Arms, log: Log, task_id: str) -> None:
    async with orchestrator(nats_url) as runner:
        await arms.submit(task_id, Script(DIAMOND))
        events = await until_ended(log, task_id)
        reads = counted("reads_forward_total")
        for event in reversed(events):
            await runner.event(event)
        assert counted("reads_forward_total") == reads, "a task known to have ended is not read again"
    async with orchestrator(nats_url) as restarted:
        for event in reversed(events):
            await restarted.event(event)
    assert await log.read(task_id) == events


async def test_an_orchestrator_that_was_away_leaves_steps_their_time(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    await arms.submit(task_id, Script(ONE))
    await until(lambda: _has(log, task_id, 2), "the plan is there")
    async with orchestrator(nats_url, clock=lambda: datetime.now(UTC) + timedelta(seconds=100)):
        events = await until_ended(log, task_id)
    dispatched = events[2].payload
    assert isinstance(dispatched, StepDispatched)
    told = datetime.fromisoformat(dispatched.deadline)
    assert timedelta(seconds=140) < told - events[2].stored_at < timedelta(seconds=150)


class OvertakenLog(Log):
    """Before its first append of a kind, somebody else appends something to the task."""

    def __init__(self, client: bus.Client, kind: str, foreign: NewEvent | None) -> None:
        super().__init__(client, "orchestrator")
        self._kind = kind
        self._foreign = foreign
        self._other = Log(client, "orchestrator")
        self.conflicts = 0

    async def append(self, task_id: str, new: NewEvent, expected: Position) -> Event:
        if new.kind == self._kind:
            self._kind = ""
            await self._other.append(task_id, self._foreign or new, expected)
        try:
            return await super().append(task_id, new, expected)
        except Conflict:
            self.conflicts += 1
            raise


async def test_another_orchestrators_append_of_the_same_decision_is_not_repeated(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    logs: list[OvertakenLog] = []

    def overtaken(client: bus.Client) -> Log:
        logs.append(OvertakenLog(client, "step.dispatched", None))
        return logs[0]

    async with orchestrator(nats_url, log=overtaken):
        await arms.submit(task_id, Script(WIDE))
        events = await until_ended(log, task_id)
    assert sorted(kinds(events)) == sorted(NINE)
    assert logs[0].conflicts >= 1


async def test_a_foreign_append_is_folded_before_deciding_again(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    foreign = NewEvent(payload=TaskCancelRequested(requested_by="operator"), causation_id=task_id)
    script = Script(LINE)
    async with orchestrator(nats_url, log=lambda client: OvertakenLog(client, "step.dispatched", foreign)):
        await arms.submit(task_id, script)
        events = await until_ended(log, task_id)
    assert kinds(events) == ["task.received", "task.planned", "task.cancel_requested", "task.cancelled"]
    assert script.steps_seen == []


async def test_two_orchestrators_share_the_work_without_harm(nats_url: str, arms: Arms, log: Log) -> None:
    tasks = [str(uuid.uuid4()) for _ in range(20)]
    async with orchestrator(nats_url), orchestrator(nats_url):
        await asyncio.gather(*(arms.submit(task_id, Script(DIAMOND)) for task_id in tasks))
        for task_id in tasks:
            events = await until_ended(log, task_id)
            assert events[-1].kind == "task.completed"
            assert len(events) == 11


async def test_a_cache_that_is_too_small_only_costs_reads(nats_url: str, arms: Arms, log: Log) -> None:
    tasks = [str(uuid.uuid4()) for _ in range(8)]
    async with orchestrator(nats_url, cache_size=1):
        await asyncio.gather(*(arms.submit(task_id, Script(LINE)) for task_id in tasks))
        for task_id in tasks:
            assert kinds(await until_ended(log, task_id)) == NINE


async def test_a_failed_attempt_is_followed_by_another_one_after_a_pause(
    nats_url: str, arms: Arms, log: Log, task_id: str
) -> None:
    reports = iter((failed("a", ErrorCode.SANDBOX_UNAVAILABLE), executed("a", "a\n")))

    async def act(step_id: str) -> Payload | None:
        return next(reports)

    plan = planned(structs.replace(step("a"), retry=Retry(max_attempts=2, backoff_ms=100)))
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(plan, act), retries=1)
        events = await until_ended(log, task_id)
    steps = ["step.dispatched", "step.failed", "step.dispatched", "step.executed"]
    assert kinds(events) == ["task.received", "task.planned", *steps, "task.completed"]
    failure, again = events[3:5]
    assert (again.data["attempt"], again.causation_id) == (2, failure.id)
    assert again.stored_at - failure.stored_at >= timedelta(milliseconds=50)


async def test_a_resumed_task_that_waits_for_a_plan_asks_for_it_again(
    nats: bus.Client, nats_url: str, log: Log, task_id: str
) -> None:
    await log.append(task_id, NewEvent(payload=received(), causation_id=task_id), Position.START)
    command = msgspec.json.encode(TaskResume(task_id=task_id, requested_by="operator"))
    async with orchestrator(nats_url), orchestrator(nats_url):
        for attempt in (2, 3):
            await nats.jetstream().publish("task.resume", command)
            await until(partial(_has, log, task_id, attempt), f"the plan is asked for, attempt {attempt}")
    events = await log.read(task_id)
    assert kinds(events) == ["task.received", "plan.requested", "plan.requested"]
    assert [event.data["attempt"] for event in events[1:]] == [2, 3]
    assert {event.data["requested_by"] for event in events[1:]} == {"operator"}


async def test_resume_looks_again(nats: bus.Client, nats_url: str, log: Log, task_id: str) -> None:
    first = await log.append(task_id, NewEvent(payload=received(), causation_id=task_id), Position.START)
    await Log(nats, "planner").append(task_id, NewEvent(payload=ONE, causation_id=first.id), first.position)
    # Somebody acknowledged the plan and did nothing about it.
    consumer = Consumer(nats, "EVENTS", "saga")
    async for delivery in consumer:
        await delivery.ack()
        if delivery.subject == f"task.planned.{task_id}":
            await consumer.close()
    resumed = counted("commands_total", command="task.resume", outcome="done")
    async with orchestrator(nats_url):
        assert len(await log.read(task_id)) == 2
        command = TaskResume(task_id=task_id, requested_by="operator")
        await nats.jetstream().publish("task.resume", msgspec.json.encode(command))
        await until(lambda: counted("commands_total", command="task.resume", outcome="done") > resumed, "an answer")
    assert kinds(await log.read(task_id)) == ["task.received", "task.planned", "step.dispatched"]


async def test_commands_that_lead_nowhere_are_taken_and_counted(nats: bus.Client, nats_url: str, task_id: str) -> None:
    approve = TaskApprove(task_id=task_id, decision=ApprovalDecision.approve, requested_by="operator")
    resume = TaskResume(task_id=task_id, requested_by="operator")
    sent = {
        ("task.approve", "unsupported"): msgspec.json.encode(approve),
        ("task.resume", "nothing_to_do"): msgspec.json.encode(resume),
        ("task.cancel", "unreadable"): b'{"task_id": 1}',
    }
    before = {case: counted("commands_total", command=case[0], outcome=case[1]) for case in sent}
    async with orchestrator(nats_url):
        for (subject, _), body in sent.items():
            await nats.jetstream().publish(subject, body)
        for case, count in before.items():
            await until(partial(_counted_more, case, count), f"{case} is counted")
    info = await nats.jetstream().consumer_info("COMMANDS", "orchestrator")
    assert info.num_ack_pending == 0
    assert info.num_pending == 0
