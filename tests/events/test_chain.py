"""The chain's verifier: by the vectors that the Rust crate shares, and by whatever else can be done to a chain."""

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octollm.events.chain import EXAMINED, Chain, Code, Message, verify
from octollm.events.envelope import NO_HASH, event_hash

CORPUS = Path(__file__).parents[2] / "events" / "corpus"
CASES = sorted(path.stem for path in (CORPUS / "chain").glob("*.jsonl"))
TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
_line = msgspec.json.Decoder(Message)


def stored(name: str) -> list[Message]:
    return [_line.decode(line) for line in (CORPUS / "chain" / f"{name}.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_vectors(name: str) -> None:
    found = msgspec.json.decode(msgspec.json.encode(verify(stored(name))))
    assert found == msgspec.json.decode((CORPUS / "chain" / f"{name}.report.json").read_bytes())


def test_the_vectors_are_what_their_script_writes() -> None:
    wanted: dict[Path, str] = runpy.run_path(str(CORPUS / "vectors.py"))["files"]()
    assert {path.name: path.read_text() for path in (CORPUS / "chain").iterdir()} == {
        path.name: text for path, text in wanted.items()
    }


def test_every_code_has_a_vector() -> None:
    codes = {finding.code for name in CASES for task in verify(stored(name)).tasks for finding in task.findings}
    assert codes == set(Code)


def chain(length: int, kind: str = "step.executed") -> list[Message]:
    """A chain of any length that has not ended."""
    messages: list[Message] = []
    prev = NO_HASH
    for version in range(1, length + 1):
        messages.append(event("task.received" if version == 1 else kind, version, version, prev))
        prev = digest(messages[-1])
    return messages


def event(kind: str, seq: int, version: int, prev: str) -> Message:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"{seq}",
        "ce-type": f"octollm.{kind}.v1",
        "ce-source": "/octollm/test",
        "ce-time": "2026-11-22T12:00:00.000Z",
        "ce-subject": TASK,
        "ce-causationid": TASK,
        "ce-taskversion": str(version),
        "ce-prevhash": prev,
    }
    return Message(seq=seq, subject=f"{kind}.{TASK}", headers=headers, body=b"{}", stored_at="")


def digest(message: Message) -> str:
    return event_hash(message.subject, message.headers, message.body)


def changed(message: Message, **changes: Any) -> Message:
    return msgspec.structs.replace(message, **changes)


@given(data=st.data(), at=st.integers(0, 5))
@settings(deadline=None)
def test_any_changed_byte_is_found_and_its_event_named(data: st.DataObject, at: int) -> None:
    """In any event but the last: nothing vouches for that one."""
    messages = stored("intact")
    one = messages[at]
    name = data.draw(st.sampled_from(["body", *(name for name in one.headers if name.startswith("ce-"))]))
    old = one.body if name == "body" else one.headers[name].encode()
    place = data.draw(st.integers(0, len(old) - 1))
    # ASCII stays ASCII: a header is text.
    new = old[:place] + bytes([old[place] ^ data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64]))]) + old[place + 1 :]
    value = {"body": new} if name == "body" else {"headers": one.headers | {name: new.decode()}}
    messages[at] = changed(one, **value)
    (task,) = verify(messages).tasks
    assert not task.intact
    assert task.findings[0].seq == one.seq


@given(st.permutations(range(7)))
@settings(deadline=None)
def test_any_other_order_is_found(order: list[int]) -> None:
    messages = stored("intact")
    shuffled = [changed(messages[old], seq=11 + new) for new, old in enumerate(order)]
    (task,) = verify(shuffled).tasks
    assert task.intact == (order == list(range(7)))
    assert task.intact == (not task.findings)


@given(st.sets(st.integers(0, 6), min_size=1, max_size=6))
@settings(deadline=None)
def test_any_gap_is_found_but_a_cut_tail(removed: set[int]) -> None:
    kept = [message for at, message in enumerate(stored("intact")) if at not in removed]
    (task,) = verify(kept).tasks
    tail = removed == set(range(min(removed), 7))
    assert task.intact == tail
    assert task.intact == (not task.findings)


MUTATION = st.tuples(
    st.sampled_from(["drop", "copy", "swap", "body", "prev", "version", "subject", "kind", "header"]),
    st.integers(0, 6),
    st.integers(0, 6),
)


def mutated(messages: list[Message], what: str, one: int, other: int) -> None:
    if not messages:
        return
    one, other = one % len(messages), other % len(messages)
    message = messages[one]
    match what:
        case "drop":
            del messages[one]
        case "copy":
            messages.insert(other, message)
        case "swap":
            messages[one], messages[other] = messages[other], message
        case "body":
            messages[one] = changed(message, body=message.body + b" ")
        case "prev":
            messages[one] = changed(message, headers=message.headers | {"ce-prevhash": digest(messages[other])})
        case "version":
            messages[one] = changed(message, headers=message.headers | {"ce-taskversion": str(other)})
        case "subject":
            messages[one] = changed(message, headers=message.headers | {"ce-subject": "other"})
        case "kind":
            kind = "task.failed"
            headers = message.headers | {"ce-type": f"octollm.{kind}.v1"}
            messages[one] = changed(message, subject=f"{kind}.{TASK}", headers=headers)
        case "header":
            headers = {name: value for name, value in message.headers.items() if name != "ce-id"}
            messages[one] = changed(message, headers=headers)


@given(st.lists(MUTATION, min_size=1, max_size=4))
@settings(deadline=None, max_examples=500)
def test_whatever_is_done_a_broken_chain_has_a_finding(mutations: list[tuple[str, int, int]]) -> None:
    messages = stored("intact")
    for mutation in mutations:
        mutated(messages, *mutation)
    for task in verify(messages).tasks:
        assert task.intact == (not task.findings)
        assert len({finding.seq for finding in task.findings}) <= task.events


def test_memory_is_bounded_and_a_long_chain_is_checked_to_its_end() -> None:
    messages = chain(3 * EXAMINED)
    taken = Chain(TASK)
    for message in messages:
        taken.take(message)
        assert len(taken._links) <= EXAMINED
    assert taken.report().intact
    messages[-5] = changed(messages[-5], body=b"{ }")
    (task,) = verify(messages).tasks
    assert [(finding.seq, finding.code) for finding in task.findings] == [(messages[-5].seq, Code.CHANGED)]


def test_of_a_broken_chain_only_so_much_is_examined_and_the_rest_counted() -> None:
    hanging = [event("step.executed", seq, 2, "ab" * 32) for seq in range(2, 3 * EXAMINED)]
    (task,) = verify([*chain(1), *hanging]).tasks
    assert not task.intact
    assert task.events == 3 * EXAMINED - 1
    assert task.unexamined == task.events - EXAMINED
    assert task.findings


def test_a_fork_of_an_ended_task_is_found_though_it_was_forgotten() -> None:
    messages = chain(5)
    end = event("task.completed", 6, 6, digest(messages[-1]))
    fork = event("task.failed", 7, 6, digest(messages[-1]))
    (task,) = verify([*messages, end, fork]).tasks
    assert [(finding.seq, finding.code, finding.witness) for finding in task.findings] == [(7, Code.AFTER_END, 6)]
