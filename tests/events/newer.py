"""Events as a later version of the system would write them: nothing here can read their payloads."""

import json
from enum import StrEnum

from nats.aio.client import Client

from octollm.events.envelope import Event, NewEvent, Position, envelope
from octollm.events.log import TIME_UNKNOWN
from tests.events.examples import example, raw


class Newer(StrEnum):
    """How an event is newer than what reads it."""

    VERSION = "a version of its schema that is not known"
    FIELD = "a field that its schema does not know"


async def store(client: Client, task_id: str, kind: str, expected: Position, newer: Newer) -> Event:
    """Stores such an event as the task's next one: its envelope is right, and so is the chain."""
    headers = envelope(task_id, NewEvent(payload=example(kind), causation_id=task_id), expected, "newer")
    payload = raw(kind)
    match newer:
        case Newer.VERSION:
            headers["ce-type"] = f"octollm.{kind}.v2"
        case Newer.FIELD:
            payload = payload | {"surprise": 1}
    subject, body = f"{kind}.{task_id}", json.dumps(payload).encode()
    guards = {
        "Nats-Expected-Last-Subject-Sequence": str(expected.seq),
        "Nats-Expected-Last-Subject-Sequence-Subject": f"*.*.{task_id}",
    }
    stored = await client.jetstream().publish(subject, body, headers=headers | guards)
    return Event.parse(subject, headers, body, stored.seq, TIME_UNKNOWN)
