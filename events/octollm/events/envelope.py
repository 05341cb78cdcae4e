"""The envelope: CloudEvents 1.0 in binary mode over NATS headers, ids, and the hash chain (events/README.md)."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar

import msgspec

from octollm.events import schema
from octollm.events.payload import Payload

OCTOLLM = uuid.uuid5(uuid.NAMESPACE_DNS, "octollm")
"""Namespace of ids that no task precedes."""

TERMINAL = frozenset({"task.completed", "task.failed", "task.cancelled", "task.rejected"})
"""Facts after which a task never changes."""

NO_HASH = "0" * 64
"""`ce-prevhash` of a task's first event."""


class Undecodable(ValueError):
    """A stored message that this version can't read: bad headers, an unknown kind or version, or a broken payload."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a task's log stands: what an append expects to find.

    seq: stream sequence of the last event, 0 for none. version: its `ce-taskversion`. hash: its hash.
    """

    seq: int
    version: int
    hash: str
    terminal: bool = False

    START: ClassVar["Position"]


Position.START = Position(seq=0, version=0, hash=NO_HASH)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append. `key` says what the decision is about (`<plan>/<step>/<attempt>`), never a position."""

    payload: Payload
    causation_id: str
    key: str = ""
    traceparent: str | None = None

    @property
    def kind(self) -> str:
        """`<entity>.<fact>`."""
        return schema.kind_of(self.payload)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A stored event. `seq` is its stream sequence, `stored_at` the broker's time (UTC, microseconds)."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    seq: int
    stored_at: datetime

    # What the headers say, parsed once.
    kind: str
    schema_version: int
    task_id: str
    id: str
    version: int
    prev_hash: str
    causation_id: str
    source: str
    time: str
    traceparent: str | None

    @classmethod
    def parse(cls, subject: str, headers: Mapping[str, str], body: bytes, seq: int, stored_at: datetime) -> "Event":
        """Reads the envelope, not the payload; raises Undecodable."""
        try:
            kind, task_id = subject.rsplit(".", 1)
            prefix, version = headers["ce-type"].rsplit(".v", 1)
            if prefix != f"octollm.{kind}" or headers["ce-subject"] != task_id:
                raise ValueError("subject and headers disagree")
            return cls(
                subject=subject,
                headers=headers,
                body=body,
                seq=seq,
                stored_at=stored_at,
                kind=kind,
                schema_version=int(version),
                task_id=task_id,
                id=headers["ce-id"],
                version=int(headers["ce-taskversion"]),
                prev_hash=headers["ce-prevhash"],
                causation_id=headers["ce-causationid"],
                source=headers["ce-source"],
                time=headers["ce-time"],
                traceparent=headers.get("ce-traceparent"),
            )
        except (KeyError, ValueError) as error:
            raise Undecodable(f"message {seq} on {subject} has no valid envelope: {error}") from error

    @cached_property
    def payload(self) -> Payload:
        """The payload as its carrier type; raises Undecodable."""
        known = schema.messages().get(self.kind)
        if known is None or known[1] != self.schema_version:
            raise Undecodable(f"task {self.task_id}: {self.kind} v{self.schema_version} is not known to this version")
        try:
            return schema.decode(self.kind, self.body)
        except schema.SchemaViolation as error:
            raise Undecodable(f"task {self.task_id}: event {self.version} ({error})") from error

    @cached_property
    def data(self) -> dict[str, Any]:
        """The payload as plain JSON, unchecked."""
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded

    @cached_property
    def hash(self) -> str:
        """What the task's next event names as `ce-prevhash`."""
        return event_hash(self.subject, self.headers, self.body)

    @property
    def terminal(self) -> bool:
        """Nothing may follow."""
        return self.kind in TERMINAL

    @property
    def position(self) -> Position:
        """The task's log as of this event."""
        return Position(seq=self.seq, version=self.version, hash=self.hash, terminal=self.terminal)


def event_id(task_id: str, causation_id: str, kind: str, key: str) -> str:
    """The deterministic id of a decision: UUIDv5 in the task's namespace."""
    return str(uuid.uuid5(uuid.UUID(task_id), f"{causation_id}/{kind}/{key}"))


def event_hash(subject: str, headers: Mapping[str, str], body: bytes) -> str:
    """SHA-256 over subject, `ce-*` headers in byte order, and body."""
    digest = hashlib.sha256(f"{subject}\n".encode())
    for name in sorted(name for name in headers if name.startswith("ce-")):
        digest.update(f"{name}:{headers[name]}\n".encode())
    digest.update(b"\n")
    digest.update(body)
    return digest.hexdigest()


def envelope(task_id: str, new: NewEvent, expected: Position, source: str) -> dict[str, str]:
    """The headers of `new` as the event after `expected`."""
    kind = new.kind
    identity = event_id(task_id, new.causation_id, kind, new.key)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": identity,
        "ce-type": f"octollm.{kind}.v{schema.messages()[kind][1]}",
        "ce-source": f"/octollm/{source}",
        "ce-time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ce-subject": task_id,
        "content-type": "application/json",
        "ce-causationid": new.causation_id,
        "ce-taskversion": str(expected.version + 1),
        "ce-prevhash": expected.hash,
        "Nats-Msg-Id": identity,
    }
    if new.traceparent is not None:
        headers["ce-traceparent"] = new.traceparent
    return headers


def broker_time(nanoseconds: int) -> datetime:
    """A broker timestamp (nanoseconds since the epoch), cut to microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def parse_broker_time(text: str) -> datetime:
    """A broker timestamp in RFC 3339 with up to nine fractional digits, cut to microseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")
