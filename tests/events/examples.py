"""Payloads for tests: the examples that the schemas carry."""

from functools import cache
from typing import Any

import msgspec

from octollm.events import schema
from octollm.events.payload import Payload


@cache
def example(kind: str, number: int = 0) -> Payload:
    """The carrier of a schema's example."""
    return msgspec.convert(raw(kind, number), schema.messages()[kind][0])


def raw(kind: str, number: int = 0) -> Any:
    """A schema's example as plain JSON."""
    return schema.documents()[kind]["examples"][number]


def cases() -> list[tuple[str, int]]:
    """Every example of every message."""
    return [(kind, n) for kind in schema.messages() for n in range(len(schema.documents()[kind].get("examples", [])))]
