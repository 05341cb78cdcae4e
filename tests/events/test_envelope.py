"""Ids and hashes, by vectors that the Rust crate shares."""

from datetime import UTC, datetime

import pytest

from octollm.events.envelope import (
    NO_HASH,
    OCTOLLM,
    Event,
    NewEvent,
    Position,
    Undecodable,
    broker_time,
    envelope,
    event_hash,
    event_id,
    parse_broker_time,
)
from tests.events.examples import example

TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"


def test_vectors() -> None:
    assert str(OCTOLLM) == "8047c669-ce86-5034-a476-38d2fffd93e4"
    assert event_id(TASK, TASK, "step.executed", "1/echo/1") == "09403039-e48d-51b6-a78b-60e15e7c2336"
    headers = {"ce-id": "x", "ce-type": "octollm.task.failed.v1", "content-type": "application/json"}
    assert event_hash(f"task.failed.{TASK}", headers, b"{}") == (
        "78c8ac1bc110e119298cddde251c4945cf43e9228765020085db4f840e317fa3"
    )


def test_an_id_depends_on_what_is_decided_alone() -> None:
    assert event_id(TASK, "a", "step.dispatched", "1/b/1") == event_id(TASK, "a", "step.dispatched", "1/b/1")
    assert event_id(TASK, "a", "step.dispatched", "1/b/1") != event_id(TASK, "a", "step.dispatched", "1/b/2")


def test_the_hash_covers_envelope_and_body_but_not_transport() -> None:
    new = NewEvent(payload=example("task.cancel_requested"), causation_id=TASK)
    headers = envelope(TASK, new, Position.START, "orchestrator")
    subject = f"task.cancel_requested.{TASK}"
    plain = event_hash(subject, headers, b"{}")
    assert plain == event_hash(subject, headers | {"Nats-Msg-Id": "other"}, b"{}")
    assert plain != event_hash(subject, headers | {"ce-time": "other"}, b"{}")
    assert plain != event_hash(subject, headers, b"{ }")
    assert headers["ce-prevhash"] == NO_HASH
    assert headers["ce-taskversion"] == "1"


@pytest.mark.parametrize(
    "change", [{"ce-subject": "other"}, {"ce-type": "octollm.task.failed.v1"}, {"ce-taskversion": "x"}]
)
def test_a_foreign_envelope_is_undecodable(change: dict[str, str]) -> None:
    new = NewEvent(payload=example("task.cancel_requested"), causation_id=TASK)
    headers = envelope(TASK, new, Position.START, "orchestrator") | change
    with pytest.raises(Undecodable):
        Event.parse(f"task.cancel_requested.{TASK}", headers, b"{}", 1, datetime.now(UTC))


def test_an_unknown_version_is_contained_in_its_event() -> None:
    new = NewEvent(payload=example("task.cancel_requested"), causation_id=TASK)
    headers = envelope(TASK, new, Position.START, "orchestrator")
    headers["ce-type"] = "octollm.task.cancel_requested.v99"
    event = Event.parse(f"task.cancel_requested.{TASK}", headers, b"{}", 1, datetime.now(UTC))
    with pytest.raises(Undecodable, match="v99"):
        _ = event.payload


def test_both_forms_of_broker_time_agree() -> None:
    assert parse_broker_time("2026-11-22T12:07:11.554930123Z") == broker_time(1795349231554930123)
    assert parse_broker_time("2026-11-22T12:07:11Z") == broker_time(1795349231000000999)
    assert parse_broker_time("2026-11-22T12:07:11.5Z") == broker_time(1795349231500000000)
