"""The fold, as a pure function."""

import json
from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octollm.events import schema
from octollm.events.payload import Payload
from octollm.projections.batch import Batch, project
from octollm.projections.rows import AttemptRow, AttemptStatus, Phase, Status, TaskRow
from octollm.projections.state import Change, apply
from tests.projections import story

TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"


def fold(*payloads: Payload) -> list[Change]:
    """The change that each event makes."""
    changes: list[Change] = []
    for event in story.events(TASK, *payloads):
        changes.append(apply(changes[-1].task if changes else None, event))
    return changes


def last(*payloads: Payload) -> TaskRow:
    return fold(*payloads)[-1].task


def standing(row: TaskRow) -> tuple[str, str]:
    return row.status.value, row.phase.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "completed",
            [
                ("pending", "planning"),
                *[("in_progress", "executing")] * 7,
                ("completed", "done"),
            ],
        ),
        ("failed", [("pending", "planning"), *[("in_progress", "executing")] * 2, ("failed", "done")]),
        ("cancelled", [("pending", "planning"), *[("in_progress", "executing")] * 3, ("cancelled", "done")]),
        ("rejected", [("rejected", "done")]),
        ("unplanned", [*[("pending", "planning")] * 3, ("failed", "done")]),
    ],
)
def test_status_and_phase_after_each_event(name: str, expected: list[tuple[str, str]]) -> None:
    assert [standing(change.task) for change in fold(*story.STORIES[name])] == expected


def test_a_completed_task() -> None:
    row = last(*story.COMPLETED)
    assert (row.first_seq, row.last_seq, row.version) == (1, 9, 9)
    assert (row.goal, row.priority) == ("Echo hello world", "medium")
    assert (row.plan_version, row.steps_total, row.steps_done, row.running) == (1, 2, 2, ())
    assert (row.cost_micro_usd, row.tokens, row.duration_ms) == (1500, 30, 48)
    assert row.result
    assert json.loads(row.result)["output"] == "hello world\n"
    assert (row.code, row.message) == (None, None)
    assert (row.created_at, row.finished_at) == (story.NOON, story.NOON + timedelta(seconds=8))
    assert row.updated_at == row.finished_at


def test_a_failed_task_keeps_code_message_and_cost() -> None:
    row = last(*story.FAILED)
    assert (row.code, row.message) == ("TIMEOUT", "the time budget of 300 s is used up")
    assert (row.cost_micro_usd, row.tokens, row.duration_ms, row.result) == (1500, 30, 48, None)


def test_a_cancelled_task_says_who_and_why() -> None:
    row = last(*story.CANCELLED)
    assert (row.code, row.message) == ("CANCELLED", "cancelled by operator: wrong folder")
    assert row.cancel_requested_at == story.NOON + timedelta(seconds=3)


def test_a_rejected_task_has_reasons_and_no_goal() -> None:
    row = last(*story.REJECTED)
    assert (row.goal, row.code) == (None, "INVALID_REQUEST")
    assert row.reasons
    assert json.loads(row.reasons) == [{"field": "/goal", "message": "must not be blank"}]
    assert row.created_at == row.finished_at


def test_costs_add_up_until_the_end_settles_them() -> None:
    usage = {"input_tokens": 100, "output_tokens": 20}
    spent = msgspec.convert(usage, type(story.plan_failed().usage))
    told = (
        story.received(),
        story.plan_failed(usage=spent, cost_micro_usd=700),
        story.planned("one", version=2, usage=spent, cost_micro_usd=900),
    )
    assert (last(*told).cost_micro_usd, last(*told).tokens) == (1600, 240)
    assert last(*told, story.failed()).cost_micro_usd == story.SPENT.cost_micro_usd


def test_an_attempt_has_a_beginning_and_an_end() -> None:
    changes = fold(*story.COMPLETED)
    began, ended = changes[4].attempts[0], changes[5].attempts[0]
    assert (began.step_id, began.attempt, began.status, began.arm) == ("two", 1, AttemptStatus.RUNNING, "executor")
    assert began.action
    assert json.loads(began.action)["kind"] == "command"
    assert changes[4].task.running == ("1/two/1",)
    assert (ended.status, ended.code, ended.exit_code) == (AttemptStatus.FAILED, "TIMEOUT", None)
    assert changes[5].task.running == ()


@pytest.mark.parametrize("late", [story.executed("two"), story.step_failed("two"), story.executed("two", attempt=3)])
def test_a_late_result_changes_nothing(late: Payload) -> None:
    before = last(*story.COMPLETED[:7])
    after = fold(*story.COMPLETED[:7], late)[-1]
    assert after.attempts == ()
    assert (after.task.running, after.task.steps_done) == (before.running, before.steps_done) == (("1/two/2",), 1)
    assert after.task.version == before.version + 1


def test_what_still_runs_at_the_end_is_abandoned() -> None:
    ending = fold(*story.FAILED)[-1]
    assert [(row.step_id, row.status) for row in ending.attempts] == [("nap", AttemptStatus.ABANDONED)]
    assert ending.task.running == ()


def test_a_new_plan_starts_the_count_anew() -> None:
    told = (story.received(), story.planned("one", "two"), story.dispatched("one"), story.executed("one"))
    assert (last(*told).steps_total, last(*told).steps_done) == (2, 1)
    row = last(*told, story.planned("three", version=2))
    assert (row.plan_version, row.steps_total, row.steps_done) == (2, 1, 0)
    late = last(*told, story.planned("three", version=2), story.executed("two"))
    assert late.steps_done == 0, "a step of the plan before is none of this plan"


def test_terminal_states_never_change() -> None:
    before = last(*story.COMPLETED)
    after = fold(*story.COMPLETED, story.failed())[-1]
    assert (after.task.status, after.task.code, after.task.result) == (Status.COMPLETED, None, before.result)
    assert (after.task.last_seq, after.task.version) == (10, 10)
    assert after.attempts == ()


def test_every_event_of_the_contract_is_told_here() -> None:
    """A new kind of event needs a place in the fold, and a story."""
    commands = {"task.submit", "task.cancel", "task.approve", "task.resume"}
    told = {schema.kind_of(payload) for payloads in story.STORIES.values() for payload in payloads}
    assert told == schema.messages().keys() - commands


def test_texts_lose_only_what_postgres_cannot_hold() -> None:
    assert last(story.received(goal="a\0b")).goal == "a\u2400b"


PAYLOADS = st.sampled_from(
    [
        story.received(),
        story.rejected(),
        story.planned("one", "two"),
        story.planned("one", version=2),
        story.plan_failed(),
        story.plan_requested(),
        story.dispatched("one"),
        story.dispatched("two"),
        story.executed("one"),
        story.executed("two", version=2),
        story.step_failed("one"),
        story.cancel_requested(),
        story.completed(),
        story.failed(),
        story.cancelled(),
    ]
)


@given(st.lists(PAYLOADS, min_size=1, max_size=12))
def test_any_order_of_events_leaves_a_consistent_row(payloads: list[Payload]) -> None:
    rows = [change.task for change in fold(*payloads)]
    for before, after in pairwise(rows):
        assert after.last_seq == before.last_seq + 1
        assert not before.status.terminal or (before.status, before.result) == (after.status, after.result)
    for row in rows:
        assert row.status.terminal == (row.phase is Phase.DONE) == (row.finished_at is not None)
        assert not (row.status.terminal and row.running)


def merged(attempts: list[AttemptRow]) -> dict[tuple[int, str, int], dict[str, object]]:
    """What the upsert of attempts makes of their rows."""
    found: dict[tuple[int, str, int], dict[str, object]] = {}
    for row in attempts:
        told = {name: getattr(row, name) for name in AttemptRow.__dataclass_fields__}
        key = (row.plan_version, row.step_id, row.attempt)
        old = found.get(key, {"seq": row.seq})
        found[key] = old | {name: value for name, value in told.items() if value is not None and name != "seq"}
    return found


@given(st.lists(PAYLOADS, min_size=1, max_size=12), st.data())
def test_batches_may_be_cut_anywhere(payloads: list[Payload], data: st.DataObject) -> None:
    told = story.messages(*story.events(TASK, *payloads))
    cut = data.draw(st.integers(0, len(told)))
    whole, first = project({}, told), project({}, told[:cut])
    second = project(first.tasks, told[cut:])
    both = Batch(
        events=first.events + second.events,
        tasks=first.tasks | second.tasks,
        plans=first.plans + second.plans,
        attempts=first.attempts + second.attempts,
    )
    assert both == whole
    assert merged(both.attempts) == merged(whole.attempts)
