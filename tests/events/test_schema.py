"""Schemas, carrier types and errors say the same thing."""

import json
from typing import Any

import msgspec
import pytest

from octollm.events import carrier, schema
from octollm.events.carrier import ErrorCode
from octollm.events.errors import OctoError, catalogue, problem
from tests.events.examples import cases, example, raw


@pytest.mark.parametrize(("kind", "number"), cases())
def test_examples_survive_decoding_and_encoding(kind: str, number: int) -> None:
    body = json.dumps(raw(kind, number)).encode()
    assert json.loads(schema.encode(schema.decode(kind, body))) == raw(kind, number)


def test_every_message_has_an_example() -> None:
    assert {kind for kind, _ in cases()} == set(schema.messages())


def test_no_event_schema_has_defaults() -> None:
    commands = {"task.submit", "task.cancel", "task.approve", "task.resume"}
    events = set(schema.messages()) - commands
    assert not [kind for kind in events if '"default"' in json.dumps(schema.documents()[kind])]


@pytest.mark.parametrize(
    ("kind", "change", "pointer"),
    [
        ("task.submit", {"goal": ""}, "/goal"),
        ("task.submit", {"goal": " \n"}, "/goal"),
        ("task.submit", {"goal": "x" * 10_001}, "/goal"),
        ("task.submit", {"surprise": 1}, ""),
        ("task.submit", {"constraints": ["x"] * 21}, "/constraints"),
        ("task.submit", {"constraints": ["x" * 501]}, "/constraints/0"),
        ("task.submit", {"acceptance_criteria": [{"kind": "magic"}]}, "/acceptance_criteria/0/kind"),
        ("task.submit", {"acceptance_criteria": [{"kind": "exit_code"}]}, "/acceptance_criteria/0/code"),
        ("task.submit", {"acceptance_criteria": [{"text": "x"}]}, "/acceptance_criteria/0/kind"),
        ("task.submit", {"acceptance_criteria": [7]}, "/acceptance_criteria/0"),
        ("task.submit", {"budget": {"a/b~": 1}}, "/budget"),
        ("task.submit", {"budget": {"max_tokens": 100_001}}, "/budget/max_tokens"),
        ("task.submit", {"budget": {"max_cost_usd": 100.5}}, "/budget/max_cost_usd"),
        ("task.submit", {"budget": {"max_time_seconds": 3601}}, "/budget/max_time_seconds"),
        ("task.submit", {"budget": {"max_retries": 11}}, "/budget/max_retries"),
        ("task.submit", {"priority": "urgent"}, "/priority"),
        ("task.submit", {"task_id": "42"}, "/task_id"),
        ("task.submit", {"files": [{"path": "../x", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"files": [{"path": "/etc/x", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"files": [{"path": "a/./b", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"files": [{"path": "a//b", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"files": [{"path": "a\n/../../x", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"files": [{"path": "a/..", "type": "dir"}]}, "/files/0/path"),
        ("task.submit", {"plan": {"steps": []}}, "/plan/steps"),
        ("step.executed", {"exit_code": 256}, "/exit_code"),
        ("step.dispatched", {"deadline": "tomorrow, about five"}, "/deadline"),
    ],
)
def test_broken_limits_are_named_without_the_value(kind: str, change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(schema.SchemaViolation) as caught:
        schema.validate(kind, raw(kind) | change)
    assert pointer in [place for place, _ in caught.value.errors]
    assert "tomorrow" not in str(caught.value)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "..a", "a..b/...", ".hidden", "a/.b"])
def test_ordinary_paths_are_taken(path: str) -> None:
    schema.validate("task.submit", {"goal": "x", "files": [{"path": path, "type": "dir"}]})


@pytest.mark.parametrize("body", [b"\xff{", b"", b"[" * 100_000])
def test_what_is_no_json_is_a_violation(body: bytes) -> None:
    with pytest.raises(schema.SchemaViolation, match="not JSON"):
        schema.decode("task.failed", body)


def test_carriers_are_immutable_and_refuse_unknown_fields() -> None:
    payload = example("task.cancel_requested")
    with pytest.raises(AttributeError):
        payload.reason = "other"  # type: ignore[attr-defined]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"requested_by": "x", "surprise": 1}, carrier.TaskCancelRequested)


def test_every_code_has_its_facts() -> None:
    assert set(catalogue()) == set(ErrorCode)
    body = problem(OctoError(ErrorCode.NOT_FOUND, "no task 7", task_id="7", errors=(("/id", "unknown"),)))
    assert body["status"] == 404
    assert body["type"] == "urn:octollm:error:NOT_FOUND"
    assert body["errors"] == [{"pointer": "/id", "message": "unknown"}]
