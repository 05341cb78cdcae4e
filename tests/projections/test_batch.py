"""Messages that can't be read: kept as they are, counted on their task, and never in the way of others."""

import dataclasses

import pytest

from octollm.events.direct import Stored
from octollm.projections.batch import project
from octollm.projections.rows import Status
from tests.projections import story

TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
GOOD = story.messages(*story.events(TASK, *story.COMPLETED))


def changed(message: Stored, **changes: object) -> Stored:
    return dataclasses.replace(message, **changes)  # type: ignore[arg-type]


def headed(message: Stored, **headers: str) -> Stored:
    return changed(message, headers=message.headers | {f"ce-{name}": value for name, value in headers.items()})


BROKEN = {
    "not json": changed(GOOD[3], data=b"{"),
    "not utf-8": changed(GOOD[3], data=b'"\xff"'),
    "empty": changed(GOOD[3], data=b""),
    "breaks the schema": changed(GOOD[3], data=b'{"plan_version": 0}'),
    "nested without end": changed(GOOD[3], data=b"[" * 100_000),
    "no headers": changed(GOOD[3], headers={}),
    "unknown version": headed(GOOD[3], type="octollm.step.executed.v99"),
    "unknown kind": headed(changed(GOOD[3], subject=f"step.dreamt.{TASK}"), type="octollm.step.dreamt.v1"),
    "another subject": headed(GOOD[3], subject="11111111-1111-4111-8111-111111111111"),
    "version no number": headed(GOOD[3], taskversion="four"),
    "lone surrogate": headed(GOOD[3], source="/octollm/\udcff"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_kept_and_counted(name: str) -> None:
    message = BROKEN[name]
    batch = project({}, [*GOOD[:3], message, *GOOD[4:]])
    row = batch.events[3]
    assert row.undecodable
    assert (row.raw, row.payload, row.task_id) == (message.data, None, TASK)
    task = batch.tasks[TASK]
    assert (task.status, task.undecodable, task.last_seq, task.version) == (Status.COMPLETED, 1, 9, 9)
    assert [event.undecodable for event in batch.events].count(None) == 8


def test_a_task_may_begin_with_what_cannot_be_read() -> None:
    batch = project({}, [changed(GOOD[0], data=b"{")])
    task = batch.tasks[TASK]
    assert (task.status, task.goal, task.undecodable, task.version) == (Status.PENDING, None, 1, 1)


def test_the_version_is_kept_where_the_envelope_can_be_read() -> None:
    assert project({}, [BROKEN["unknown kind"]]).events[0].version == 4
    assert project({}, [BROKEN["no headers"]]).events[0].version is None


@pytest.mark.parametrize(
    "subject", ["task.received.nobody", f"task.received.{TASK.upper()}", "task.received." + "x" * 4000]
)
def test_a_subject_without_a_task_makes_no_task(subject: str) -> None:
    batch = project({}, [changed(GOOD[0], subject=subject), GOOD[0]])
    assert list(batch.tasks) == [TASK]
    assert batch.events[0].undecodable
    assert len(batch.events[0].task_id) <= 200


def test_an_event_that_the_tables_refuse_is_treated_so() -> None:
    batch = project({}, GOOD, {4: "the view can't hold it"})
    assert batch.events[3].undecodable == "the view can't hold it"
    assert batch.tasks[TASK].undecodable == 1


def test_the_payload_is_the_body_as_it_was_written() -> None:
    for row, message in zip(project({}, GOOD).events, GOOD, strict=True):
        assert row.payload is not None
        assert row.payload.encode() == message.data
