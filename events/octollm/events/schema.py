"""Validation and coding of payloads: the schema itself decides, the carrier types only carry."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from octollm.events import carrier
from octollm.events.payload import Payload

Message = tuple[type[Payload], int]
"""A message's carrier type and the newest version of its schema."""


class SchemaViolation(ValueError):
    """A payload breaks its schema. `errors`: (JSON pointer, what is wrong), the offending value never among them."""

    def __init__(self, kind: str, errors: list[tuple[str, str]]) -> None:
        places = "; ".join(f"{pointer or '/'}: {message}" for pointer, message in errors[:5])
        super().__init__(f"{kind} breaks its schema in {len(errors)} place(s): {places}")
        self.kind = kind
        self.errors = errors


@cache
def documents() -> dict[str, dict[str, Any]]:
    """Every schema by name (`step.executed`, `plan`, …) with the newest version of each."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted((files("octollm.events") / "schemas").iterdir(), key=lambda entry: entry.name):
        newest = max(folder.iterdir(), key=lambda entry: int(entry.name.removeprefix("v").removesuffix(".json")))
        found[folder.name] = json.loads(newest.read_text())
    return found


@cache
def messages() -> dict[str, Message]:
    """Commands and events by kind."""
    version = {name: int(str(doc["$id"]).rsplit("/v", 1)[1].removesuffix(".json")) for name, doc in documents().items()}
    return {
        name: (getattr(carrier, document["title"]), version[name])
        for name, document in documents().items()
        if "." in name
    }


@cache
def _kinds() -> dict[type[Payload], str]:
    return {struct: kind for kind, (struct, _) in messages().items()}


@cache
def _validator(kind: str) -> jsonschema_rs.Draft202012Validator:
    registry = jsonschema_rs.Registry([(document["$id"], document) for document in documents().values()])
    # Values are masked: an error message ends in logs, and a value may be anything.
    return jsonschema_rs.Draft202012Validator(
        documents()[kind], registry=registry, validate_formats=True, mask="the value"
    )


@cache
def _decoder(kind: str) -> msgspec.json.Decoder[Payload]:
    return msgspec.json.Decoder(messages()[kind][0])


_encoder = msgspec.json.Encoder()


def kind_of(payload: Payload) -> str:
    """`step.executed` for a StepExecuted."""
    return _kinds()[type(payload)]


def validate(kind: str, data: Any) -> None:
    """Raises SchemaViolation unless `data` (plain JSON) is a `kind`; KeyError for an unknown kind."""
    errors = [place for error in _validator(kind).iter_errors(data) for place in _places(error)]
    if errors:
        raise SchemaViolation(kind, errors)


def _places(error: jsonschema_rs.ValidationError) -> Iterator[tuple[str, str]]:
    """The fields that are at fault, as the Rust crate names them: a missing one by its own name, and inside a union
    those of the member that was meant."""
    pointer = _pointer(error.instance_path)
    match error.kind:
        case Kind.Required(property=name):
            yield pointer + _pointer([name]), "is required"
        case Kind.OneOfNotValid(context=members):
            yield from _union(pointer, members)
        case _:
            yield pointer, error.message


def _union(pointer: str, members: list[list[jsonschema_rs.ValidationError]]) -> Iterator[tuple[str, str]]:
    """The errors of the member whose type and constant `kind` fit; without one, what would have to fit."""
    kinds: set[str] = set()
    types: set[str] = set()
    untagged = False
    for errors in _flattened(members, pointer):
        meant = True
        for error in errors:
            place = _pointer(error.instance_path)
            match error.kind:
                case Kind.Constant(expected_value=value) if place == f"{pointer}/kind":
                    kinds.add(str(value))
                case Kind.Type(types=wanted) if place == pointer:
                    types.update(wanted)
                case Kind.Required(property="kind") if place == pointer:
                    untagged = True
                case _:
                    continue
            meant = False
        if meant:
            for error in errors:
                yield from _places(error)
            return
    if untagged:
        yield f"{pointer}/kind", "is required"
    elif kinds:
        yield f"{pointer}/kind", f"must be one of {', '.join(sorted(kinds))}"
    else:
        yield pointer, f"must be {' or '.join(sorted(types))}"


def _flattened(
    members: list[list[jsonschema_rs.ValidationError]], pointer: str
) -> Iterator[list[jsonschema_rs.ValidationError]]:
    """The members of a union, with those of a union inside it in its place."""
    for errors in members:
        match errors:
            case [jsonschema_rs.ValidationError(kind=Kind.OneOfNotValid(context=inner)) as only] if (
                _pointer(only.instance_path) == pointer
            ):
                yield from _flattened(inner, pointer)
            case _:
                yield errors


def _pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def encode(payload: Payload) -> bytes:
    """Compact JSON, checked against its schema; raises SchemaViolation."""
    body = _encoder.encode(payload)
    validate(kind_of(payload), msgspec.json.decode(body))
    return body


def decode(kind: str, body: bytes) -> Payload:
    """The payload, checked against its schema; raises SchemaViolation (also for what is not JSON)."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaViolation(kind, [("", f"is not JSON that can be read: {error}")]) from error
    validate(kind, data)
    return _decoder(kind).decode(body)
