"""An event that this version can't read is a failure of its task alone."""

import uuid

import pytest
from prometheus_client import REGISTRY

from octollm.events import bus
from octollm.events.carrier import ErrorCode, TaskFailed
from octollm.events.envelope import Position
from octollm.events.log import Log
from octollm.events.payload import Payload
from tests.events.newer import Newer, store
from tests.orchestrator.arms import Arms, Script, orchestrator, until, until_ended
from tests.orchestrator.history import planned, step

ONE = planned(step("echo"))
LINE = planned(step("a"), step("b", "a"), step("c", "b"))


def _unreadable(kind: str) -> float:
    return REGISTRY.get_sample_value("octollm_orchestrator_unreadable_events_total", {"kind": kind}) or 0.0


async def silent(_: str) -> Payload | None:
    """The step never reports."""
    return None


@pytest.mark.parametrize("newer", Newer)
@pytest.mark.parametrize("kind", ["task.planned", "step.executed"])
async def test_it_ends_its_task_in_time_and_no_other(nats_url: str, nats: bus.Client, kind: str, newer: Newer) -> None:
    log = Log(nats, "test")
    odd, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with orchestrator(nats_url), Arms(nats) as arms:
        before = 1 if kind == "task.planned" else 3
        await arms.submit(odd, Script(None if kind == "task.planned" else ONE, silent), seconds=3)

        async def waits() -> bool:
            return len(await log.read(odd)) == before

        await until(waits, "the task waits for its arm")
        unread = await store(nats, odd, kind, (await log.read(odd))[-1].position, newer)
        await arms.submit(other, Script(LINE))
        assert len(await until_ended(log, other)) == 9
        events = await until_ended(log, odd)
    # What can't be read is passed over, not taken for something else, and stays on record.
    assert events[before].id == unread.id
    given_up = ["step.failed"] if kind == "step.executed" else []
    assert [event.kind for event in events[before + 1 :]] == [*given_up, "task.failed"]
    ended = events[-1].payload
    assert isinstance(ended, TaskFailed)
    assert ended.code is ErrorCode.TIMEOUT


@pytest.mark.parametrize("newer", Newer)
async def test_a_beginning_that_can_not_be_read_begins_nothing(nats_url: str, nats: bus.Client, newer: Newer) -> None:
    log = Log(nats, "test")
    odd, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with orchestrator(nats_url), Arms(nats) as arms:
        before = _unreadable("task.received")
        await store(nats, odd, "task.received", Position.START, newer)
        await arms.submit(other, Script(LINE))
        assert len(await until_ended(log, other)) == 9
        await until(lambda: _unreadable("task.received") > before, "it is counted")
    assert [event.kind for event in await log.read(odd)] == ["task.received"]
