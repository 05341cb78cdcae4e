"""Writes the vectors of capabilities: `capability/digests.json` and `capability/tokens.json`.

What a verifier must say is declared here; no verifier is asked. Signatures are never equal twice, so a run replaces
every token: `python events/corpus/tokens.py`, and only when a case is added.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, PrivateKey, PublicKey

FOLDER = Path(__file__).parent / "capability"

KEY = "ed25519-private/" + hashlib.sha256(b"octollm: a key for tests, known to everybody").hexdigest()
FOREIGN_KEY = "ed25519-private/" + hashlib.sha256(b"octollm: another key for tests").hexdigest()
PUBLIC_KEY = "ed25519/c3dcddbab58c6e22b159a1b3df9c5ddab3f2f9e9b4c549aeb67206d29d19cdb1"

EXPIRY = datetime(2026, 11, 22, 12, 0, 45, tzinfo=UTC)
BEFORE = "2026-11-22T12:00:00Z"

# The canonical form of each is written by hand after RFC 8785, so that no library is its own judge.
DIGESTS: list[tuple[str, Any, str]] = [
    (
        "command",
        {"kind": "command", "pipeline": [["echo", "hello world"]]},
        '{"kind":"command","pipeline":[["echo","hello world"]]}',
    ),
    (
        "keys are sorted, stages are not",
        {"stdin": "b\na\n", "pipeline": [["sort"], ["head", "-n", "1"]], "kind": "command"},
        '{"kind":"command","pipeline":[["sort"],["head","-n","1"]],"stdin":"b\\na\\n"}',
    ),
    (
        "unicode stands for itself, control characters are escaped",
        {"kind": "file", "op": "write", "path": "größe", "text": 'é 漢 👩‍👧 \u0000\u001f\u007f\b\t\n\f\r"\\/'},
        '{"kind":"file","op":"write","path":"größe","text":"é 漢 👩‍👧 \\u0000\\u001f\u007f\\b\\t\\n\\f\\r\\"\\\\/"}',
    ),
    (
        "names are sorted by their UTF-16 units",
        {
            "kind": "check",
            "criteria": [
                {"kind": "json_path", "query": "$", "equals": {"\ufb33": 1, "😀": 2, "ö": 3, "1": 4, "\r": 5}}
            ],
        },
        '{"criteria":[{"equals":{"\\r":5,"1":4,"ö":3,"😀":2,"\ufb33":1},"kind":"json_path","query":"$"}],"kind":"check"}',
    ),
    (
        "integers, fractions, nothing, nested lists",
        {
            "kind": "check",
            "criteria": [
                {
                    "kind": "json_path",
                    "query": "$.a",
                    "equals": [0, -1, 9007199254740991, 1.0, 0.5, [], [[1]], None, True],
                }
            ],
        },
        '{"criteria":[{"equals":[0,-1,9007199254740991,1,0.5,[],[[1]],null,true],"kind":"json_path","query":"$.a"}],'
        '"kind":"check"}',
    ),
    (
        "every number is a double",
        {
            "kind": "check",
            "criteria": [{"kind": "json_path", "query": "$", "equals": [9007199254740993, 10**21, 1e-7, -0.0]}],
        },
        '{"criteria":[{"equals":[9007199254740992,1e+21,1e-7,0],"kind":"json_path","query":"$"}],"kind":"check"}',
    ),
]


def digest(canonical: str) -> str:
    """Of the canonical form."""
    return hashlib.sha256(canonical.encode()).hexdigest()


EXPECTED: dict[str, Any] = {
    "audience": "executor",
    "task": "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21",
    "plan": 1,
    "step": "echo",
    "attempt": 1,
    "purpose": "run",
    "action": digest(DIGESTS[0][2]),
    "effect": "pure",
    "limits": {"wall_ms": 30000, "memory_bytes": 536870912, "output_bytes": 1048576},
}
"""What a verifier holds a token to: the fields of the dispatch that carries it."""


def token(stated: dict[str, Any], key: str = KEY, expiry: datetime = EXPIRY) -> str:
    """A token that states these facts, written down once more so that the vectors don't lean on what they test."""
    facts = {name: json.dumps(value) for name, value in stated.items() if name != "limits"}
    lines = [f"{name}({value});" for name, value in facts.items()]
    lines += [f'limit("{name}", {value});' for name, value in stated.get("limits", {}).items()]
    lines.append(f"check if time($now), $now < {expiry.isoformat().replace('+00:00', 'Z')};")
    builder = BiscuitBuilder("\n".join(lines))
    builder.set_root_key_id(0)
    return builder.build(PrivateKey(key)).to_base64()


def appended(block: str) -> str:
    """A good token to which somebody without the key has added a block."""
    return Biscuit.from_base64(token(EXPECTED), PublicKey(PUBLIC_KEY)).append(BlockBuilder(block)).to_base64()


def flipped(place: float) -> str:
    """A good token with one bit changed at this part of its length."""
    raw = bytearray(base64.urlsafe_b64decode(token(EXPECTED)))
    raw[int(len(raw) * place)] ^= 1
    return base64.urlsafe_b64encode(raw).decode()


def without(name: str) -> dict[str, Any]:
    """What is expected, but for one fact."""
    return {key: value for key, value in EXPECTED.items() if key != name}


def cases() -> list[dict[str, Any]]:
    """Every case: a token, when and against what it is verified, and whether it grants that."""
    found: list[dict[str, Any]] = []

    def case(
        name: str, why: str, text: str, *, granted: bool = False, at: str = BEFORE, expected: dict[str, Any] = EXPECTED
    ) -> None:
        found.append({"name": name, "why": why, "token": text, "at": at, "expected": expected, "granted": granted})

    good = token(EXPECTED)
    case("valid", "states just what is asked for", good, granted=True)
    case("valid-last-moment", "in its last second", good, granted=True, at="2026-11-22T12:00:44Z")
    longest = EXPECTED | {
        "audience": "a" * 40,
        "plan": 100,
        "step": "s" * 40,
        "attempt": 100,
        "effect": "side_effecting",
        "limits": {"wall_ms": 300000, "memory_bytes": 4294967296, "output_bytes": 16777216},
    }
    case("valid-longest", "every field at its limit", token(longest), granted=True, expected=longest)
    execute = EXPECTED | {"audience": "executor/execute"}
    case("valid-execute", "for the HTTP endpoint", token(execute), granted=True, expected=execute)

    case("expired", "its time is over at the very moment it names", good, at="2026-11-22T12:00:45Z")
    case("expired-long-ago", "a year later", good, at="2027-11-22T12:00:00Z")
    other: dict[str, Any] = {
        "task": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "plan": 2,
        "step": "wipe",
        "attempt": 2,
        "purpose": "compensate",
        "action": digest(DIGESTS[1][2]),
        "effect": "idempotent",
    }
    for name, value in other.items():
        case(f"other-{name}", f"granted to another {name}", good, expected=EXPECTED | {name: value})
    for name, value in EXPECTED["limits"].items():
        raised = EXPECTED | {"limits": EXPECTED["limits"] | {name: value * 2}}
        case(f"other-limit-{name}", "the step may use less than it claims", good, expected=raised)
    case("dispatch-at-endpoint", "a dispatch's token at the HTTP endpoint", good, expected=execute)
    case("endpoint-as-dispatch", "the HTTP endpoint's token in a dispatch", token(execute))

    case("foreign-key", "signed by a key that nobody trusts", token(EXPECTED, key=FOREIGN_KEY))
    case("tampered-facts", "one bit of what it states", flipped(0.1))
    case("tampered-limits", "one bit further on", flipped(0.6))
    case("tampered-signature", "one bit of the signature", flipped(0.85))
    case("cut-short", "its end is missing", good[: len(good) // 2])
    case("no-token", "of the right form only", "A" * 400)
    for name in EXPECTED:
        case(f"silent-on-{name}", f"does not say which {name}", token(without(name)))
    case("appended-facts", "a block that anybody may add states another step", appended('step("wipe");'),
         expected=EXPECTED | {"step": "wipe"})  # fmt: skip
    past = (EXPIRY - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    case("appended-check", "a block narrows it to a time that is over", appended(f"check if time($t), $t < {past};"))
    return found


def main() -> None:
    """Writes both files."""
    FOLDER.mkdir(exist_ok=True)
    digests = [
        {"name": name, "action": action, "canonical": canonical, "digest": digest(canonical)}
        for name, action, canonical in DIGESTS
    ]
    tokens = {"private_key": KEY, "public_key": PUBLIC_KEY, "cases": cases()}
    for name, document in (("digests", digests), ("tokens", tokens)):
        (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
