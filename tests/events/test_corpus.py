"""The golden corpus: what was ever valid stays readable, and what is refused is refused at one place everywhere."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from octollm.events import schema
from octollm.events.envelope import NO_HASH, Event, Undecodable

EVENTS = Path(__file__).parents[2] / "events"
CORPUS = EVENTS / "corpus"
COMMANDS = {"task.submit", "task.cancel", "task.approve", "task.resume"}
VALID = sorted(CORPUS.glob("*.*/v*/*.json"))
INVALID = sorted(CORPUS.glob("invalid/*/*.json"))
TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"


def named(path: Path) -> str:
    return path.relative_to(CORPUS).with_suffix("").as_posix()


def stored(kind: str, version: int, body: bytes) -> Event:
    """The payload as the log would hold it."""
    headers = {
        "ce-id": "7aa7db2c-4038-5a50-a63e-ab4717720f56",
        "ce-type": f"octollm.{kind}.v{version}",
        "ce-source": "/octollm/test",
        "ce-time": "2026-11-22T12:00:00.000Z",
        "ce-subject": TASK,
        "ce-causationid": TASK,
        "ce-taskversion": "1",
        "ce-prevhash": NO_HASH,
    }
    return Event.parse(f"{kind}.{TASK}", headers, body, 1, datetime(2026, 11, 22, tzinfo=UTC))


def of_type(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"octollm\.([a-z_.]+)\.v([0-9]+)", text)
    assert found
    return found[1], int(found[2])


def refused(kind: str, body: bytes) -> list[str]:
    with pytest.raises(schema.SchemaViolation) as caught:
        schema.decode(kind, body)
    return sorted({pointer for pointer, _ in caught.value.errors})


@pytest.mark.parametrize("path", VALID, ids=named)
def test_what_is_valid_comes_back_as_it_was(path: Path) -> None:
    kind, version = path.parts[-3], int(path.parts[-2].removeprefix("v"))
    wanted = json.loads(path.read_bytes())
    payload = schema.decode(kind, path.read_bytes())
    assert json.loads(schema.encode(payload)) == wanted
    if kind not in COMMANDS:
        assert stored(kind, version, path.read_bytes()).payload == payload


@pytest.mark.parametrize("path", INVALID, ids=named)
def test_what_is_invalid_is_refused_at_its_place(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_bytes())
    kind, version = of_type(case["type"])
    assert kind == path.parts[-2]
    body = case["body"].encode() if "body" in case else json.dumps(case["payload"]).encode()
    if version == schema.messages()[kind][1]:
        assert refused(kind, body) == case["pointers"]
    if kind not in COMMANDS:
        with pytest.raises(Undecodable, match=TASK):
            _ = stored(kind, version, body).payload


def test_every_version_of_every_schema_has_its_instances() -> None:
    versions = {
        path.relative_to(EVENTS / "schemas").with_suffix("") for path in (EVENTS / "schemas").glob("*.*/v*.json")
    }
    for version in versions:
        names = {path.stem for path in (CORPUS / version).glob("*.json")}
        assert {"minimal", "full", "limits", "unicode"} <= names or str(version).startswith(tuple(COMMANDS)), version
        assert len(names) >= 4, version
    assert {path.parent.relative_to(CORPUS) for path in VALID} == versions


def test_every_kind_has_what_it_must_refuse() -> None:
    for kind in schema.messages():
        names = {path.stem for path in (CORPUS / "invalid" / kind).glob("*.json")}
        wanted = {"unknown-field", "no-object", "no-json", "missing-field", "null-field"}
        assert wanted | (set() if kind in COMMANDS else {"unknown-version"}) <= names, kind
        assert len(names) > len(wanted), kind


def properties(document: Any) -> set[str]:
    """Every field that a schema names, definitions included."""
    found: set[str] = set()
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "properties":
                found.update(value)
            if name != "examples":
                found |= properties(value)
    elif isinstance(document, list):
        for value in document:
            found |= properties(value)
    return found


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set()


@pytest.mark.parametrize("kind", sorted(schema.messages()))
def test_every_field_occurs(kind: str) -> None:
    wanted = properties(schema.documents()[kind])
    found = set().union(*(keys(json.loads(path.read_bytes())) for path in VALID if path.parts[-3] == kind))
    assert wanted <= found


def test_shared_fields_occur_too() -> None:
    shared = set().union(*(properties(schema.documents()[name]) for name in ("contract", "plan", "record")))
    found = set().union(*(keys(json.loads(path.read_bytes())) for path in VALID))
    assert shared <= found
