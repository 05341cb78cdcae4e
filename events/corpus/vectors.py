"""Writes the vectors of the hash chain: `chain/<case>.jsonl` (exported messages) and `chain/<case>.report.json`.

What is wrong in each case, and so what a verifier must find, is declared here; no verifier is asked. Both languages are
tested against the files. `python events/corpus/vectors.py` writes them, `--check` only compares.
"""

import base64
import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
NO_HASH = "0" * 64
KINDS = (
    *("task.received", "task.planned", "step.dispatched", "step.executed", "step.dispatched", "step.executed"),
    "task.completed",
)

Message = dict[str, Any]
"""A line of an export, its body as bytes."""

Found = tuple[int, int | None, str, int | None, str]
"""seq, version, code, witness, detail."""


@dataclass
class Case:
    """What is stored, and what is to be found in each task, by task id."""

    messages: list[Message]
    found: dict[str, list[Found]] = field(default_factory=dict)


def payload(kind: str) -> bytes:
    """The first example of a kind's schema."""
    schema = json.loads((HERE.parent / "schemas" / kind / "v1.json").read_text())
    return json.dumps(schema["examples"][0], ensure_ascii=False, separators=(",", ":")).encode()


def digest(message: Message) -> str:
    """The event's hash, written down once more so that the vectors don't lean on what they test."""
    lines = sorted(f"{name}:{value}\n" for name, value in message["headers"].items() if name.startswith("ce-"))
    return hashlib.sha256(f"{message['subject']}\n{''.join(lines)}\n".encode() + message["body"]).hexdigest()


def event(kind: str, seq: int, version: int, prev: str, task: str = TASK, body: bytes | None = None) -> Message:
    """A stored event at this position."""
    entity = uuid.uuid5(uuid.UUID(task), f"{seq}")
    return {
        "seq": seq,
        "subject": f"{kind}.{task}",
        "headers": {
            "ce-specversion": "1.0",
            "ce-id": str(entity),
            "ce-type": f"octollm.{kind}.v1",
            "ce-source": "/octollm/vectors",
            "ce-time": f"2026-11-22T12:00:{seq % 60:02}.000Z",
            "ce-subject": task,
            "content-type": "application/json",
            "ce-causationid": task,
            "ce-taskversion": str(version),
            "ce-prevhash": prev,
        },
        "body": payload(kind) if body is None else body,
        "stored_at": f"2026-11-22T12:00:{seq % 60:02}.000500Z",
    }


def chain(kinds: tuple[str, ...] = KINDS, task: str = TASK, first_seq: int = 11, stride: int = 2) -> list[Message]:
    """Events that follow one another; between their sequences lie those of other tasks."""
    messages: list[Message] = []
    for number, kind in enumerate(kinds):
        prev = digest(messages[-1]) if messages else NO_HASH
        messages.append(event(kind, first_seq + stride * number, number + 1, prev, task))
    return messages


def renumbered(messages: list[Message]) -> list[Message]:
    """The same messages at rising sequences, as a store that was rewritten would hold them."""
    return [message | {"seq": 11 + 2 * at} for at, message in enumerate(messages)]


def with_header(message: Message, name: str, value: str | None) -> Message:
    """The message with a header changed, or without it."""
    headers = {key: old for key, old in message["headers"].items() if key != name}
    return message | {"headers": headers if value is None else headers | {name: value}}


def flipped(text: str) -> str:
    """One bit of the last character is another; a digit stays one, and so does a letter of a hash."""
    return text[:-1] + chr(ord(text[-1]) ^ 1)


def header_case(name: str, found: Found, value: Callable[[str], str | None] = flipped) -> Case:
    """The third of seven events has this header changed."""
    messages = chain()
    messages[2] = with_header(messages[2], name, value(messages[2]["headers"][name]))
    return Case(messages, {TASK: [found]})


def cases() -> dict[str, Case]:
    """Every case by its file's name. Sequences are 11, 13, 15 … 23 for versions 1 to 7."""
    whole = chain()
    first, planned, dispatched, executed, second, third, end = whole
    changed: Found = (15, 3, "CHANGED", 17, "")
    start = "a task begins with task.received or task.rejected, version 1"
    elsewhere = "names an event that is not in this chain"
    made: dict[str, Case] = {
        "intact": Case(whole),
        "intact-open": Case(whole[:4]),
        "intact-rejected": Case(chain(("task.rejected",))),
        "intact-two-tasks": Case(
            sorted([*whole, *chain(task=OTHER, first_seq=12)], key=lambda message: int(message["seq"]))
        ),
        "empty": Case([]),
    }
    # What no unsigned chain can show. These are here so that nobody claims otherwise.
    made["unseen-cut-tail"] = Case(whole[:5])
    made["unseen-changed-last"] = Case([*whole[:6], end | {"body": end["body"] + b" "}])
    made["unseen-rewritten"] = Case(chain(KINDS[:2] + KINDS[4:]))

    made["changed-body"] = Case(
        [first, planned, dispatched | {"body": dispatched["body"].replace(b"1", b"0", 1)}, *whole[3:]],
        {TASK: [changed]},
    )
    made["changed-body-of-first"] = Case(
        [first | {"body": first["body"] + b"\n"}, *whole[1:]], {TASK: [(11, 1, "CHANGED", 13, "")]}
    )
    # The last two contradict each other, and nothing later says which of them was changed: the earlier is named.
    made["changed-body-before-last"] = Case(
        [*whole[:5], third | {"body": b"{}"}, end], {TASK: [(21, 6, "CHANGED", 23, "")]}
    )
    for name in ("ce-id", "ce-source", "ce-time", "ce-causationid"):
        made[f"changed-{name}"] = header_case(name, changed)
    made["changed-ce-traceparent"] = Case(
        [
            first,
            planned,
            with_header(dispatched, "ce-traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
            *whole[3:],
        ],
        {TASK: [changed]},
    )
    made["changed-ce-prevhash"] = header_case("ce-prevhash", changed)
    made["changed-ce-subject"] = header_case("ce-subject", (15, 3, "CHANGED", None, "ce-subject names another task"))
    made["changed-ce-type"] = header_case(
        "ce-type",
        (15, 3, "UNREADABLE", None, "ce-type does not fit the subject"),
        lambda text: text.replace("step", "stfp"),
    )
    # A version of the schema that nobody knows is readable as far as the chain goes.
    made["changed-schema-version"] = header_case("ce-type", changed, lambda text: text.replace(".v1", ".v9"))
    made["changed-ce-specversion"] = header_case(
        "ce-specversion", (15, 3, "UNREADABLE", None, "ce-specversion is not 1.0")
    )
    made["changed-ce-taskversion"] = header_case(
        "ce-taskversion", (15, 7, "WRONG_VERSION", 13, "version 3 follows"), lambda _: "7"
    )
    made["unreadable-ce-taskversion"] = header_case(
        "ce-taskversion", (15, None, "UNREADABLE", None, "ce-taskversion is no version"), lambda _: "03"
    )
    made["unreadable-ce-prevhash"] = header_case(
        "ce-prevhash", (15, 3, "UNREADABLE", None, "ce-prevhash is no hash"), lambda text: text[:-1] + "G"
    )
    for name in ("ce-id", "ce-subject", "ce-taskversion", "ce-prevhash"):
        version = None if name == "ce-taskversion" else 3
        made[f"missing-{name}"] = header_case(
            name, (15, version, "UNREADABLE", None, f"header {name} is missing"), lambda _: None
        )
    made["no-envelope"] = Case(
        [first, {**planned, "seq": 12, "headers": {}, "body": b"\x00\xff no event"}, *whole[1:]],
        {TASK: [(12, None, "UNREADABLE", None, "header ce-specversion is missing")]},
    )

    made["removed-one"] = Case([*whole[:2], *whole[3:]], {TASK: [(17, 4, "MISSING", 13, "versions 3 to 3")]})
    made["removed-several"] = Case([first, *whole[4:]], {TASK: [(19, 5, "MISSING", 11, "versions 2 to 4")]})
    made["removed-first"] = Case(
        whole[1:], {TASK: [(13, 2, "BROKEN_START", None, "the first event names one before it")]}
    )

    forged = event("step.failed", 16, 4, digest(dispatched))
    made["inserted"] = Case(
        [*whole[:3], forged, *whole[3:]],
        {TASK: [(16, 4, "INSERTED", 17, "another event follows the same one")]},
    )
    made["inserted-terminal"] = Case(
        [*whole[:3], event("task.failed", 16, 4, digest(dispatched)), *whole[3:]],
        {TASK: [(16, 4, "INSERTED", 17, "another event follows the same one")]},
    )
    stale = event("task.cancel_requested", 20, 3, digest(planned))
    made["inserted-at-an-old-position"] = Case(
        [*whole[:5], stale, *whole[5:]],
        {TASK: [(20, 3, "INSERTED", 15, "another event follows the same one and is followed")]},
    )
    made["inserted-copy"] = Case(
        [*whole[:5], planned | {"seq": 20}, *whole[5:]], {TASK: [(20, 2, "INSERTED", 13, "a copy")]}
    )
    made["reordered-neighbours"] = Case(
        renumbered([first, planned, executed, dispatched, *whole[4:]]),
        {TASK: [(15, 4, "REORDERED", 17, "stored before the event that it follows")]},
    )
    made["reordered-far"] = Case(
        renumbered([first, third, planned, dispatched, executed, second, end]),
        {TASK: [(13, 6, "REORDERED", 21, "stored before the event that it follows")]},
    )
    made["reordered-first"] = Case(
        renumbered([planned, first, *whole[2:]]),
        {TASK: [(11, 2, "REORDERED", 13, "stored before the event that it follows")]},
    )
    made["reordered-sequences"] = Case(
        [*whole[:3], executed | {"seq": 14}, *whole[4:]],
        {TASK: [(14, 4, "REORDERED", 15, "its sequence does not rise")]},
    )

    # An event of another task, put under this one's subject as it is.
    lent = chain(task=OTHER)[4]
    made["foreign-task"] = Case(
        [*whole[:3], lent | {"seq": 16, "subject": f"step.dispatched.{TASK}"}, *whole[3:]],
        {TASK: [(16, 5, "FOREIGN", None, "ce-subject names another task")]},
    )
    # Written for this task with the position of another.
    lost = event("step.executed", 16, 4, digest(chain(task=OTHER)[2]))
    made["foreign-position"] = Case(
        [*whole[:3], lost, *whole[3:]], {TASK: [(16, 4, "FOREIGN", 17, "nothing follows it")]}
    )
    made["foreign-position-at-the-end"] = Case(
        [*whole[:4], event("step.executed", 18, 2, "ab" * 32)], {TASK: [(18, 2, "FOREIGN", None, elsewhere)]}
    )
    made["foreign-chain"] = Case(
        [*whole[:5], event("task.received", 20, 1, "cd" * 32), *whole[5:]],
        {TASK: [(20, 1, "FOREIGN", 21, "nothing follows it")]},
    )

    skipping = [first, planned]
    for kind, seq, version in (("step.dispatched", 15, 4), ("step.executed", 17, 5)):
        skipping.append(event(kind, seq, version, digest(skipping[-1])))
    made["wrong-version"] = Case(skipping, {TASK: [(15, 4, "WRONG_VERSION", 13, "version 3 follows")]})
    repeating = [first, planned, event("step.dispatched", 15, 2, digest(planned))]
    made["wrong-version-repeated"] = Case(repeating, {TASK: [(15, 2, "WRONG_VERSION", 13, "version 3 follows")]})

    made["start-of-another-kind"] = Case(
        chain(("task.planned", "step.dispatched")), {TASK: [(11, 1, "BROKEN_START", None, start)]}
    )
    late = event("task.received", 11, 2, NO_HASH)
    made["start-with-another-version"] = Case([late], {TASK: [(11, 2, "BROKEN_START", None, start)]})
    made["start-with-a-predecessor"] = Case(
        [with_header(first, "ce-prevhash", "ab" * 32)],
        {TASK: [(11, 1, "BROKEN_START", None, "the first event names one before it")]},
    )

    after = event("step.executed", 25, 8, digest(end))
    made["after-end"] = Case([*whole, after], {TASK: [(25, 8, "AFTER_END", 23, "")]})
    made["after-end-forked"] = Case(
        [*whole, event("step.executed", 25, 7, digest(third))], {TASK: [(25, 7, "AFTER_END", 23, "")]}
    )
    made["after-end-twice"] = Case(
        [*whole, after, event("task.failed", 27, 9, digest(after))],
        {TASK: [(25, 8, "AFTER_END", 23, ""), (27, 9, "AFTER_END", 23, "")]},
    )
    made["one-of-two-tasks"] = Case(
        sorted([*whole[:2], *whole[3:], *chain(task=OTHER, first_seq=12)], key=lambda message: int(message["seq"])),
        {TASK: [(17, 4, "MISSING", 13, "versions 3 to 3")]},
    )
    made["several-things"] = Case(
        [first | {"body": b"{}"}, planned, dispatched, second, third, end, after],
        {
            TASK: [
                (11, 1, "CHANGED", 13, ""),
                (19, 5, "MISSING", 15, "versions 4 to 4"),
                (25, 8, "AFTER_END", 23, ""),
            ]
        },
    )
    return made


def report(case: Case) -> dict[str, Any]:
    """What a verifier must say."""
    tasks: dict[str, list[Message]] = {}
    for message in case.messages:
        tasks.setdefault(message["subject"].rpartition(".")[2], []).append(message)
    reports = []
    for task, messages in tasks.items():
        last, found = messages[-1], case.found.get(task, [])
        reports.append(
            {
                "task_id": task,
                "events": len(messages),
                "intact": not found,
                "ended": last["subject"].rsplit(".", 1)[0].endswith(("completed", "failed", "rejected"))
                and last["subject"].startswith("task."),
                "last": {
                    "seq": last["seq"],
                    "version": int(last["headers"]["ce-taskversion"]),
                    "hash": digest(last),
                },
                "findings": [
                    dict(zip(("seq", "version", "code", "witness", "detail"), row, strict=True)) for row in found
                ],
                "unexamined": 0,
            }
        )
    return {"intact": not any(case.found.values()), "events": len(case.messages), "tasks": reports}


def files() -> dict[Path, str]:
    """Every file of the vectors with its text."""
    made: dict[Path, str] = {}
    for name, case in cases().items():
        lines = [
            json.dumps(message | {"body": base64.b64encode(message["body"]).decode()}, separators=(",", ":"))
            for message in case.messages
        ]
        made[HERE / "chain" / f"{name}.jsonl"] = "".join(f"{line}\n" for line in lines)
        made[HERE / "chain" / f"{name}.report.json"] = json.dumps(report(case), indent=2) + "\n"
    return made


def main() -> int:
    """Writes the files, or with --check says which differ."""
    if "--check" in sys.argv[1:]:
        wanted = files()
        stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        stale += [path.name for path in (HERE / "chain").iterdir() if path not in wanted]
        if stale:
            sys.stderr.write(f"not as this script writes them: {', '.join(sorted(stale))}\n")
        return 1 if stale else 0
    (HERE / "chain").mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
