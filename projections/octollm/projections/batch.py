"""From stored messages to rows: pure, so that the same log gives the same rows on every machine and on every day."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from octollm.events.direct import Stored
from octollm.events.envelope import Event, Undecodable, event_hash
from octollm.projections import state
from octollm.projections.rows import AttemptRow, EventRow, PlanRow, TaskRow

_TASK_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VERSIONS = range(1, 2**31)
_LONGEST = 200
"""Characters kept of an identifier in an envelope that can't be read: index entries are limited, subjects hardly."""


@dataclass(slots=True)
class Batch:
    """The rows that a run of messages gives. `tasks` holds each task's last row."""

    events: list[EventRow] = field(default_factory=list)
    tasks: dict[str, TaskRow] = field(default_factory=dict)
    plans: list[PlanRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)


def task_of(message: Stored) -> str:
    """The last token of the subject."""
    return message.subject.rpartition(".")[2]


def project(
    known: Mapping[str, TaskRow], messages: Sequence[Stored], refused: Mapping[int, str] | None = None
) -> Batch:
    """Folds messages, in order, on top of the known task rows.

    What can't be read is kept as raw bytes with the reason, and counted on its task; `refused` names further messages
    (by sequence, with the reason) to be treated so.
    """
    batch = Batch()
    for message in messages:
        task_id = task_of(message)
        task = batch.tasks.get(task_id) or known.get(task_id)
        event: Event | None = None
        try:
            if refused and message.seq in refused:
                raise Undecodable(refused[message.seq])
            if not _TASK_ID.fullmatch(task_id):
                raise Undecodable(f"message {message.seq} on {message.subject}: the subject names no task")
            event = Event.parse(message.subject, message.headers, message.data, message.seq, message.stored_at)
            change = state.apply(task, event)
            row = _readable(event)
        except (Undecodable, UnicodeError, RecursionError) as error:
            version = event.version if event and event.version in _VERSIONS else None
            row = _unreadable(message, version, str(error) if isinstance(error, Undecodable) else repr(error))
            if not _TASK_ID.fullmatch(task_id):
                batch.events.append(row)
                continue
            change = state.unread(task, task_id, message.seq, version, message.stored_at)
        batch.events.append(row)
        batch.tasks[task_id] = change.task
        if change.plan is not None:
            batch.plans.append(change.plan)
        batch.attempts.extend(change.attempts)
    return batch


def _readable(event: Event) -> EventRow:
    return EventRow(
        seq=event.seq,
        task_id=event.task_id,
        version=event.version,
        kind=event.kind,
        id=event.id,
        causation_id=event.causation_id,
        source=event.source,
        stored_at=event.stored_at,
        hash=event.hash,
        headers=_envelope(event.headers),
        payload=event.body.decode(),
        raw=None,
        bytes=len(event.body),
        undecodable=None,
    )


def _unreadable(message: Stored, version: int | None, reason: str) -> EventRow:
    headers = {_clean(name): _clean(value) for name, value in message.headers.items()}
    kind, _, task_id = _clean(message.subject).rpartition(".")
    return EventRow(
        seq=message.seq,
        task_id=task_id[:_LONGEST],
        version=version,
        kind=kind[:_LONGEST],
        id=headers.get("ce-id", "")[:_LONGEST] or None,
        causation_id=headers.get("ce-causationid", "")[:_LONGEST] or None,
        source=headers.get("ce-source", "")[:_LONGEST] or None,
        stored_at=message.stored_at,
        hash=event_hash(_clean(message.subject), headers, message.data),
        headers=_envelope(headers),
        payload=None,
        raw=message.data,
        bytes=len(message.data),
        undecodable=_clean(reason)[:2000],
    )


def _envelope(headers: Mapping[str, str]) -> str:
    kept = {name: value for name, value in headers.items() if name == "content-type" or name.startswith("ce-")}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)


def _clean(text: str) -> str:
    # Bytes that are no UTF-8 come as lone surrogates; neither they nor U+0000 fit into a Postgres text.
    return text.encode("utf-8", "replace").decode().replace("\0", "\u2400")
