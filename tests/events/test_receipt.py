"""The verifier of receipts: by the vectors that the executor shares, and by whatever else can be done to a receipt."""

import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octollm.events.chain import Message
from octollm.events.receipt import Code, KeyUnusable, PublicKeys, TaskReport, public_key, verify

CORPUS = Path(__file__).parents[2] / "events" / "corpus"
VECTORS: dict[str, Any] = json.loads((CORPUS / "receipt" / "cases.json").read_bytes())
CASES: list[dict[str, Any]] = VECTORS["cases"]
_line = msgspec.json.Decoder(Message)
MESSAGES = [_line.decode(line) for line in (CORPUS / "receipt" / "messages.jsonl").read_bytes().splitlines()]
KEYS = PublicKeys([VECTORS["public_key"]])


def message(one: int | dict[str, Any]) -> Message:
    """A message of the base, or one that is made from it."""
    if isinstance(one, int):
        return MESSAGES[one]
    base: Message = MESSAGES[one["index"]]
    start, end, new = one.get("splice", (0, 0, ""))
    body = base.body[:start] + new.encode() + base.body[end:]
    return msgspec.structs.replace(base, headers=base.headers | one.get("headers", {}), body=body)


def judged(case: dict[str, Any]) -> list[TaskReport]:
    return verify(map(message, case["messages"]), PublicKeys(case["keys"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    assert msgspec.to_builtins(judged(case)) == [
        report | {"findings": tuple(report["findings"])} for report in case["reports"]
    ]


def test_every_code_has_a_vector_and_names_are_not_given_twice() -> None:
    codes = {finding["code"] for case in CASES for report in case["reports"] for finding in report["findings"]}
    assert codes == set(Code)
    assert len({case["name"] for case in CASES}) == len(CASES) > 100


def test_the_vectors_are_what_their_script_writes() -> None:
    wanted: str = runpy.run_path(str(CORPUS / "receipts.py"))["document"]()
    assert (CORPUS / "receipt" / "cases.json").read_text() == wanted


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_byte_of_a_result_can_be_changed_unseen(data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([place for place, one in enumerate(MESSAGES) if b'"receipt":' in one.body]))
    body = bytearray(MESSAGES[at].body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    changed = [*MESSAGES[:at], msgspec.structs.replace(MESSAGES[at], body=bytes(body)), *MESSAGES[at + 1 :]]
    assert any(finding.seq == MESSAGES[at].seq for report in verify(changed, KEYS) for finding in report.findings)


@pytest.mark.parametrize("depth", [500, 100_000])
def test_an_action_without_a_bottom_is_no_dispatch(depth: int) -> None:
    deep = b'{"step":{"arm":"executor","action":' + b"[" * depth + b"]" * depth + b"}}"
    changed = [*MESSAGES[:4], msgspec.structs.replace(MESSAGES[4], body=deep), *MESSAGES[5:]]
    findings = [finding for report in verify(changed, KEYS) for finding in report.findings]
    assert [finding.code for finding in findings] == [Code.OTHER_DISPATCH]


def test_keys_are_read_and_what_is_none_is_told(tmp_path: Path) -> None:
    assert public_key(VECTORS["private_key"]) == VECTORS["public_key"]
    path = tmp_path / "receipt.pub"
    path.write_text(f"# ours\n\n{VECTORS['public_key']}\n")
    assert PublicKeys.load([path]).ids == KEYS.ids
    for text in ("ed25519/00", VECTORS["private_key"], "\xff"):
        path.write_text(text)
        with pytest.raises(KeyUnusable) as caught:
            PublicKeys.load([path])
        assert text not in str(caught.value)
    with pytest.raises(KeyUnusable):
        PublicKeys.load([tmp_path / "nowhere"])
