"""Writes the vectors of receipts: `receipt/cases.json`, from the events in `receipt/messages.jsonl`.

Those were written by a stack whose keys/receipt.key was PRIVATE_KEY: two tasks, of which the first ends in a step that
the policy denies. Each case is what is left when something is done to them, and what a verifier must find, which is
declared here; no verifier is asked. `python events/corpus/receipts.py` writes the cases, `--check` only compares.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

FOLDER = Path(__file__).parent / "receipt"
PRIVATE_KEY = (
    "ed25519-private/" + hashlib.sha256(b"octollm: a key for the receipts of tests, known to everybody").hexdigest()
)
OWN = SigningKey(bytes.fromhex(PRIVATE_KEY.partition("/")[2]))
OTHER = SigningKey(hashlib.sha256(b"octollm: another key for the receipts of tests").digest())

MESSAGES: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "messages.jsonl").read_text().splitlines()]
BODIES = [base64.b64decode(message["body"]) for message in MESSAGES]
EVERY: list[Any] = list(range(len(MESSAGES)))
FIRST_DISPATCH, FIRST, DISPATCH, SECOND, LAST_DISPATCH, LAST = 2, 3, 4, 5, 6, 7
"""Places of the first task's events: each result after its dispatch."""
OTHERS_FIRST = 12
"""The place of the second task's first result."""

TASKS = [MESSAGES[0]["headers"]["ce-subject"], MESSAGES[OTHERS_FIRST]["headers"]["ce-subject"]]
RESULTS = {TASKS[0]: 3, TASKS[1]: 2}

BREAKS = (LAST, "BROKEN_CHAIN", "it names another one than the one before it")
"""What is found at the last result when the second has another receipt, or none."""

Found = tuple[int, str, str]
"""Place, code, detail."""


def public(key: SigningKey) -> str:
    """The key as it stands in a file."""
    return f"ed25519/{bytes(key.verify_key).hex()}"


def key_id(key: SigningKey) -> str:
    """What names the key in a receipt."""
    return hashlib.sha256(bytes(key.verify_key)).hexdigest()[:16]


def text(value: Any) -> bytes:
    """JSON as the executor writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def canonical(value: Any) -> bytes:
    """RFC 8785 for what stands in receipts: whole numbers, and names in ASCII."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def spliced(place: int, body: bytes, **more: Any) -> dict[str, Any]:
    """A message whose body is another: the part that differs, from byte to byte, and what stands there now."""
    old = BODIES[place]
    start = next((at for at, (a, b) in enumerate(zip(old, body, strict=False)) if a != b), min(len(old), len(body)))
    most = min(len(old), len(body)) - start
    end = next((at for at in range(most) if old[-1 - at] != body[-1 - at]), most)
    return {"index": place, "splice": [start, len(old) - end, body[start : len(body) - end].decode()], **more}


def replaced(place: int, message: Any) -> list[Any]:
    """All messages, one of them another."""
    return [message if at == place else at for at in EVERY]


def payload(place: int) -> dict[str, Any]:
    """What the event says."""
    parsed: dict[str, Any] = json.loads(BODIES[place])
    return parsed


def with_receipt(place: int, envelope: Any) -> list[Any]:
    """All messages, the result with this receipt."""
    return replaced(place, spliced(place, text(payload(place) | {"receipt": envelope})))


def statement(place: int) -> dict[str, Any]:
    """What a result's receipt says."""
    parsed: dict[str, Any] = json.loads(base64.b64decode(payload(place)["receipt"]["payload"]))
    return parsed


def signed(content: bytes, key: SigningKey = OWN, name: str = key_id(OWN)) -> dict[str, Any]:
    """An envelope whose signature is good."""
    media = b"application/vnd.in-toto+json"
    message = b"DSSEv1 %d %b %d %b" % (len(media), media, len(content), content)
    return {
        "payload": base64.b64encode(content).decode(),
        "payloadType": media.decode(),
        "signatures": [{"keyid": name, "sig": base64.b64encode(key.sign(message).signature).decode()}],
    }


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything that is no object and no list with something in it."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not inner:
        yield path
    for name, item in inner:
        yield from leaves(item, (*path, name))


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy in which one leaf is another of its kind."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = _another(inner[path[-1]])
    return copy


def _another(leaf: Any) -> Any:
    match leaf:
        case bool():
            return not leaf
        case int():
            return leaf + 1
        case str():
            return ("0" if leaf[:1] != "0" else "1") + leaf[1:]
        case list():
            return ["more"]
        case _:
            return {"more": 1}


def dotted(path: tuple[Any, ...]) -> str:
    """The path as a name."""
    return ".".join(str(part) for part in path)


class Cases:
    """The cases as they are declared."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        messages: list[Any],
        found: list[Found],
        *,
        keys: list[str] | None = None,
        results: tuple[int, int] = (3, 2),
    ) -> None:
        """`found`: by the place of the message in the base; `results`: what each task then has."""
        reports = []
        for task, count in zip(TASKS, results, strict=True):
            findings = [
                {"seq": MESSAGES[place]["seq"], "code": code, "detail": detail}
                for place, code, detail in found
                if MESSAGES[place]["headers"]["ce-subject"] == task
            ]
            reports.append({"task_id": task, "results": count, "verified": count - len(findings), "findings": findings})
        self.all.append(
            {"name": name, "keys": [public(OWN)] if keys is None else keys, "messages": messages, "reports": reports}
        )


def cases() -> list[dict[str, Any]]:
    """Every case."""
    made = Cases()
    for declare in (intact, results, statements, envelopes, dispatches, order, strangers, absent):
        declare(made)
    return made.all


def intact(made: Cases) -> None:
    """What holds, and what receipts do not tell."""
    made.add("intact", EVERY, [])
    made.add("intact, another key besides", EVERY, [], keys=[public(OTHER), public(OWN)])
    for header in ("ce-time", "ce-prevhash", "ce-id"):
        value = changed(MESSAGES[SECOND]["headers"], (header,))[header]
        untold = {"index": SECOND, "headers": {header: value}}
        made.add(f"header {header} of a result, which is the chain's", replaced(SECOND, untold), [])
    made.add("last result cut off", [at for at in EVERY if at != LAST], [], results=(2, 2))


def results(made: Cases) -> None:
    """A result that is not what was signed."""
    whole = payload(SECOND)
    named = f"it is that of {statement(SECOND)['subject'][0]['name']}"
    bare = {name: value for name, value in whole.items() if name != "receipt"}
    for path in leaves(bare):
        body = text(changed(bare, path) | {"receipt": whole["receipt"]})
        whose = path[0] in ("plan_version", "step_id", "attempt")
        found = (SECOND, "OTHER_RESULT", named) if whose else (SECOND, "ALTERED", "")
        made.add(f"result {dotted(path)}", replaced(SECOND, spliced(SECOND, body)), [found])
    for name, body in (
        ("a blank more", BODIES[SECOND].replace(b'"step_id":', b'"step_id": ', 1)),
        ("a blank before the receipt", BODIES[SECOND].replace(b',"receipt":', b', "receipt":', 1)),
        ("a blank after it", BODIES[SECOND] + b" "),
        ("a member more", text(bare | {"more": 1, "receipt": whole["receipt"]})),
        ("a member after the receipt", text(whole | {"more": 1})),
        ("members in another order", text(dict(reversed(bare.items())) | {"receipt": whole["receipt"]})),
    ):
        made.add(f"result with {name}", replaced(SECOND, spliced(SECOND, body)), [(SECOND, "ALTERED", "")])
    lacking = {name: value for name, value in whole.items() if name != "step_id"}
    found = (SECOND, "MALFORMED", "the result names no step")
    made.add("result without its step", replaced(SECOND, spliced(SECOND, text(lacking))), [found])


def statements(made: Cases) -> None:
    """A receipt that says something else: by whoever has the key, and by others."""
    whole, envelope = statement(SECOND), payload(SECOND)["receipt"]
    for path in leaves(whole):
        forged = base64.b64encode(canonical(changed(whole, path))).decode()
        messages = with_receipt(SECOND, envelope | {"payload": forged})
        made.add(f"receipt {dotted(path)}", messages, [(SECOND, "BAD_SIGNATURE", ""), BREAKS])

    predicate = whole["predicate"]
    other = "0" * 64
    name = whole["subject"][0]["name"]

    def resigned(what: str, content: bytes, code: str, detail: str = "") -> None:
        made.add(f"signed again: {what}", with_receipt(SECOND, signed(content)), [(SECOND, code, detail), BREAKS])

    def said(**members: Any) -> bytes:
        return canonical(whole | {"predicate": predicate | members})

    attempt = predicate["attempt"]
    no_attempt = {key: value for key, value in predicate.items() if key != "attempt"}
    resigned("another action", said(action=predicate["action"] | {"digest": other}), "OTHER_ACTION")
    resigned("another dispatch", said(attempt=attempt | {"dispatch": other}), "OTHER_DISPATCH")
    resigned("another attempt", said(attempt=attempt | {"attempt": 2}), "OTHER_RESULT", f"it is that of {name}")
    resigned("no attempt", canonical(whole | {"predicate": no_attempt}), "OTHER_RESULT", f"it is that of {name}")
    resigned(
        "another name",
        canonical(whole | {"subject": [whole["subject"][0] | {"name": "x"}]}),
        "OTHER_RESULT",
        "it is that of x",
    )
    resigned("another digest", canonical(whole | {"subject": [{"name": name, "digest": {"sha256": other}}]}), "ALTERED")
    formless = "what was signed has not a receipt's form"
    resigned("a member more", said(more=1), "MALFORMED", formless)
    resigned("a number that is none", said(limits=predicate["limits"] | {"wall_ms": "1"}), "MALFORMED", formless)
    resigned("not in RFC 8785 form", canonical(whole) + b" ", "MALFORMED", formless)
    resigned("members in another order", text(dict(reversed(whole.items()))), "MALFORMED", formless)
    resigned("no JSON", b"{", "MALFORMED", formless)
    resigned("no UTF-8", b'"\xff"', "MALFORMED", formless)
    names_other = [
        (SECOND, "BROKEN_CHAIN", "it names another one than the one before it"),
        BREAKS,
    ]
    made.add("signed again: another previous", with_receipt(SECOND, signed(said(previous=other))), names_other)
    first = canonical(whole | {"predicate": {key: value for key, value in predicate.items() if key != "previous"}})
    is_first = [(SECOND, "BROKEN_CHAIN", "it says that it is the task's first"), BREAKS]
    made.add("signed again: no previous", with_receipt(SECOND, signed(first)), is_first)


def envelopes(made: Cases) -> None:
    """A receipt whose form, signature or key is another."""
    whole = payload(SECOND)["receipt"]
    own = whole["signatures"][0]

    def damaged(what: str, envelope: Any, code: str, detail: str = "") -> None:
        made.add(f"envelope {what}", with_receipt(SECOND, envelope), [(SECOND, code, detail), BREAKS])

    def with_signature(**members: Any) -> dict[str, Any]:
        signed_otherwise: dict[str, Any] = whole | {"signatures": [own | members]}
        return signed_otherwise

    flipped = base64.b64decode(own["sig"])
    for place in (0, 31, 32, 63):
        sig = bytes(byte ^ (1 if at == place else 0) for at, byte in enumerate(flipped))
        made.add(
            f"envelope sig, byte {place}",
            with_receipt(SECOND, with_signature(sig=base64.b64encode(sig).decode())),
            [(SECOND, "BAD_SIGNATURE", ""), BREAKS],
        )
    unknown = _another(own["keyid"])
    damaged("keyid", with_signature(keyid=unknown), "UNKNOWN_KEY", f"key {unknown}")
    damaged("keyid of another length", with_signature(keyid="00"), "UNKNOWN_KEY", "key 00")
    shape = "it is no envelope with a signature"
    for what, envelope in (
        ("null", None),
        ("a text", "receipt"),
        ("a list", [whole]),
        ("without payload", {name: value for name, value in whole.items() if name != "payload"}),
        ("with a member more", whole | {"more": 1}),
        ("with a number for payload", whole | {"payload": 1}),
        ("with a signature that has a member more", with_signature(more=1)),
    ):
        damaged(what, envelope, "MALFORMED", shape)
    one = "the envelope needs one signature"
    damaged("with no signature", whole | {"signatures": []}, "MALFORMED", one)
    damaged("with two signatures", whole | {"signatures": [own, own]}, "MALFORMED", one)
    media = "the envelope names another payload type"
    damaged("payloadType", whole | {"payloadType": "application/json"}, "MALFORMED", media)
    no_base64 = "the payload is no base64"
    damaged("payload, no base64", whole | {"payload": "*" + whole["payload"][1:]}, "MALFORMED", no_base64)
    damaged("payload, not in ASCII", whole | {"payload": "ä" + whole["payload"][1:]}, "MALFORMED", no_base64)
    damaged("payload, a line break in it", whole | {"payload": whole["payload"] + "\n"}, "MALFORMED", no_base64)
    damaged("payload, padding gone", whole | {"payload": "QQ"}, "MALFORMED", no_base64)
    damaged("payload, bits behind its end", whole | {"payload": "QR=="}, "MALFORMED", no_base64)
    damaged("payload, empty", whole | {"payload": ""}, "BAD_SIGNATURE")
    no_sig = "the signature is no base64 of 64 bytes"
    short = base64.b64encode(flipped[:63]).decode()
    damaged("sig, a byte short", with_signature(sig=short), "MALFORMED", no_sig)
    damaged("sig, bits behind its end", with_signature(sig=own["sig"][:-3] + "B=="), "MALFORMED", no_sig)
    damaged("sig, empty", with_signature(sig=""), "MALFORMED", no_sig)
    content = base64.b64decode(whole["payload"])
    damaged("signed by another, under our name", signed(content, OTHER), "BAD_SIGNATURE")
    theirs = key_id(OTHER)
    damaged("signed by another", signed(content, OTHER, theirs), "UNKNOWN_KEY", f"key {theirs}")


def dispatches(made: Cases) -> None:
    """A dispatch that is not the one that was answered."""
    gone = (SECOND, "OTHER_DISPATCH", "the dispatch that it answers is not on record")
    made.add("dispatch removed", [at for at in EVERY if at != DISPATCH], [gone])
    elsewhere = {"index": SECOND, "headers": {"ce-causationid": MESSAGES[FIRST_DISPATCH]["headers"]["ce-id"]}}
    made.add("result names a dispatch that has one", replaced(SECOND, elsewhere), [gone])
    asked = payload(DISPATCH)
    for path in (("step", "action", "pipeline", 0, 0), ("step", "limits", "wall_ms"), ("attempt",), ("capability",)):
        body = text(changed(asked, path))
        found = [(SECOND, "OTHER_DISPATCH", "")]
        made.add(f"dispatch {dotted(path)}", replaced(DISPATCH, spliced(DISPATCH, body)), found)
    for header in ("ce-time", "ce-prevhash", "ce-taskversion"):
        value = changed(MESSAGES[DISPATCH]["headers"], (header,))[header]
        later = {"index": DISPATCH, "headers": {header: value}}
        made.add(f"dispatch header {header}", replaced(DISPATCH, later), [(SECOND, "OTHER_DISPATCH", "")])
    made.add("dispatch that is no JSON", replaced(DISPATCH, {"index": DISPATCH, "splice": [0, 1, "["]}), [gone])


def order(made: Cases) -> None:
    """Results that were removed, exchanged or given twice."""
    without = [at for at in EVERY if at != FIRST]
    none_before = "it names one before it, and none is on record"
    made.add("first result removed", without, [(SECOND, "BROKEN_CHAIN", none_before)], results=(2, 2))
    made.add("second result removed", [at for at in EVERY if at != SECOND], [BREAKS], results=(2, 2))
    earlier = [at for at in EVERY if at not in (FIRST, SECOND)]
    earlier[earlier.index(LAST_DISPATCH) : earlier.index(LAST_DISPATCH)] = [SECOND, FIRST]
    is_first = (FIRST, "BROKEN_CHAIN", "it says that it is the task's first")
    made.add("two results exchanged", earlier, [(SECOND, "BROKEN_CHAIN", none_before), is_first, BREAKS])
    swapped = replaced(FIRST, spliced(FIRST, BODIES[SECOND]))
    swapped[SECOND] = spliced(SECOND, BODIES[FIRST])
    other = [(FIRST, "OTHER_DISPATCH", ""), (SECOND, "OTHER_DISPATCH", ""), BREAKS]
    made.add("two bodies exchanged", swapped, other)
    lent = with_receipt(FIRST, payload(SECOND)["receipt"])
    lent[SECOND] = with_receipt(SECOND, payload(FIRST)["receipt"])[SECOND]
    names = [f"it is that of {statement(place)['subject'][0]['name']}" for place in (FIRST, SECOND)]
    found = [(FIRST, "OTHER_RESULT", names[1]), (SECOND, "OTHER_RESULT", names[0]), BREAKS]
    made.add("two receipts exchanged", lent, found)
    again = "the dispatch that it answers is not on record"
    twice = [*EVERY[: SECOND + 1], SECOND, *EVERY[SECOND + 1 :]]
    made.add("a result twice", twice, [(SECOND, "OTHER_DISPATCH", again)], results=(4, 2))


def strangers(made: Cases) -> None:
    """Keys that are not at hand, and receipts of another task."""
    places = [place for place in EVERY if "receipt" in payload(place)]
    for what, keys in (("no key", []), ("another key", [public(OTHER)])):
        found = [(place, "UNKNOWN_KEY", f"key {key_id(OWN)}") for place in places]
        made.add(what, EVERY, found, keys=keys)
    theirs = f"it is that of {statement(OTHERS_FIRST)['subject'][0]['name']}"
    found = [(SECOND, "OTHER_RESULT", theirs), BREAKS]
    made.add("the receipt of another task", with_receipt(SECOND, payload(OTHERS_FIRST)["receipt"]), found)
    body = spliced(SECOND, BODIES[OTHERS_FIRST])
    made.add("the result of another task", replaced(SECOND, body), found)


def absent(made: Cases) -> None:
    """Results without a receipt: those that must have one, and those that need none."""

    def bare(place: int, **headers: str) -> dict[str, Any]:
        content = {name: value for name, value in payload(place).items() if name != "receipt"}
        return spliced(place, text(content), **({"headers": headers} if headers else {}))

    missing = (SECOND, "MISSING_RECEIPT", "")
    made.add("no receipt", replaced(SECOND, bare(SECOND)), [missing, BREAKS])
    orchestrator = {"ce-source": "/octollm/orchestrator"}
    claimed = replaced(SECOND, bare(SECOND, **orchestrator))
    made.add("no receipt, and success in the orchestrator's name", claimed, [missing, BREAKS])
    made.add("no receipt, for the arm was silent", replaced(LAST, bare(LAST, **orchestrator)), [], results=(2, 2))
    another_arm = replaced(LAST, bare(LAST))
    asked = payload(LAST_DISPATCH)
    another_arm[LAST_DISPATCH] = spliced(LAST_DISPATCH, text(asked | {"step": asked["step"] | {"arm": "other"}}))
    made.add("no receipt, of another arm", another_arm, [], results=(2, 2))
    junk = {"index": SECOND, "splice": [0, 1, "["]}
    made.add("a result that is no JSON", replaced(SECOND, junk), [missing, BREAKS])


def document() -> str:
    """The file: a case on a line."""
    head = {"private_key": PRIVATE_KEY, "public_key": public(OWN)}
    lines = ",\n".join(text(case).decode() for case in cases())
    return f'{text(head).decode()[:-1]},\n"cases":[\n{lines}\n]}}\n'


def main() -> int:
    """Writes the file, or with --check says whether it differs."""
    path, wanted = FOLDER / "cases.json", document()
    if "--check" in sys.argv[1:]:
        if path.read_text() != wanted:
            sys.stderr.write("receipt/cases.json is not as this script writes it\n")
            return 1
        return 0
    path.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
