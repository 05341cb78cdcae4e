"""What services have given up: the broker's advisories, joined with the events that they point at.

An advisory says which message a consumer will never be given again, and why. The log itself is untouched by it, so a
dead letter is no copy of anything: it is settled as soon as its task goes on.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nats.aio.client import Client

from octollm.events import direct
from octollm.events.direct import Stored
from octollm.events.envelope import TERMINAL
from octollm.stack import accounts

STREAM = "ADVISORY"

_EVENTS = "EVENTS"
_TIMEOUT_S = 5.0
_PAGE = 256
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class State(StrEnum):
    """What has happened since. `gone`: it was a command, which the broker no longer has."""

    OPEN = "open"
    MOVED_ON = "moved_on"
    ENDED = "ended"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up.

    number: its sequence in ADVISORY. stream, seq: where the message is, or was. subject: of that message, None where
    nobody said. last: the task's last event by now.
    """

    number: int
    given_up_at: datetime
    stream: str
    consumer: str
    seq: int
    deliveries: int
    reason: str
    subject: str | None
    task_id: str | None
    state: State
    last: str | None
    event: Stored | None

    @property
    def service(self) -> str:
        """Whose consumer it is."""
        wanted = accounts.Durable(stream=self.stream, durable_name=self.consumer)
        rows = accounts.table().accounts.items()
        return next((name for name, rights in rows if wanted in rights.consumes), self.consumer)

    @property
    def fact(self) -> str:
        """`task.received` of `task.received.<id>`; a command's own subject."""
        return (self.subject or "").removesuffix(f".{self.task_id}")

    @property
    def payload(self) -> Any:
        """The event's payload; its text where it is no JSON, None where the message is no event."""
        if self.event is None:
            return None
        try:
            return json.loads(self.event.data)
        except ValueError:
            return self.event.data.decode(errors="replace")

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "number": self.number,
            "given_up_at": self.given_up_at.isoformat().replace("+00:00", "Z"),
            "service": self.service,
            "stream": self.stream,
            "consumer": self.consumer,
            "seq": self.seq,
            "fact": self.fact,
            "task_id": self.task_id,
            "reason": self.reason,
            "deliveries": self.deliveries,
            "state": self.state.value,
            "last_event": self.last,
        }


async def newest(client: Client, limit: int) -> list[DeadLetter]:
    """The newest dead letters, newest first; raises DirectGetFailed, or DirectGetDenied for who is no operator."""
    last = await direct.newest(client, STREAM, _TIMEOUT_S)
    if last is None:
        return []
    found = [letter async for letter in _from(client, max(1, last.seq - limit + 1))]
    return found[::-1][:limit]


async def at(client: Client, number: int) -> DeadLetter | None:
    """One dead letter by its number; None where there is none of it (any more)."""
    advisory = await direct.at(client, STREAM, number, _TIMEOUT_S)
    return await _joined(client, advisory) if advisory else None


async def _from(client: Client, first: int) -> AsyncIterator[DeadLetter]:
    more = 1
    while more:
        advisories, more = await direct.batch(client, STREAM, ">", first, _PAGE, _TIMEOUT_S)
        for advisory in advisories:
            first = advisory.seq + 1
            yield await _joined(client, advisory)
        if not advisories:
            return


async def _joined(client: Client, advisory: Stored) -> DeadLetter:
    said: dict[str, Any] = json.loads(advisory.data)
    stream, seq = said["stream"], int(said["stream_seq"])
    event = await direct.at(client, _EVENTS, seq, _TIMEOUT_S) if stream == _EVENTS else None
    told = said.get("reason", "")
    # What gives up says the message's subject first; for an event the log knows it too.
    subject, _, reason = told.partition(" ")
    if event is not None:
        subject, reason = event.subject, reason if subject == event.subject else told
    task = _UUID.search(subject) or _UUID.search(reason)
    task_id = task[0] if task else None
    last = await direct.newest(client, _EVENTS, _TIMEOUT_S, f"*.*.{task_id}") if task_id else None
    return DeadLetter(
        number=advisory.seq,
        given_up_at=advisory.stored_at,
        stream=stream,
        consumer=said["consumer"],
        seq=seq,
        deliveries=int(said["deliveries"]),
        reason=reason or f"it was delivered {said['deliveries']} times, and nobody answered",
        subject=subject or None,
        task_id=task_id,
        state=_state(stream, advisory, last),
        last=_kind(last) if last else None,
        event=event,
    )


def _state(stream: str, advisory: Stored, last: Stored | None) -> State:
    if last is not None and _kind(last) in TERMINAL:
        return State.ENDED
    if stream == "COMMANDS":
        return State.GONE
    if last is not None and last.stored_at > advisory.stored_at:
        return State.MOVED_ON
    return State.OPEN


def _kind(event: Stored) -> str:
    return event.subject.rpartition(".")[0]
