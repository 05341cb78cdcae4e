#!/usr/bin/env python3
"""Recall of the screen on disguised values.

    evasion.py write GOLD.jsonl > DISGUISED.jsonl     every value of the gold disguised in every way that fits it
    evasion.py score DISGUISED.jsonl PRED.jsonl       recall by disguise and by type

GOLD and PRED are the formats of the span scorer; the texts stay where they are, only what is made of them passes
through.
A value counts as found if a span of any type covers at least half of its characters. Deterministic: no random choice.
"""

import base64
import html
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

Document = dict[str, Any]

TYPES = {"EMAIL", "PHONE", "US_SSN", "CREDIT_CARD", "IBAN", "IP_ADDRESS", "MAC_ADDRESS", "GITHUB_TOKEN", "AWS_KEY"}
LOOKALIKES = str.maketrans("aceopxyijsABCEHKMOPTX", "асеорхуіјѕАВСЕНКМОРТХ")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def full_width(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


def bold(value: str) -> str:
    def one(c: str) -> str:
        if "a" <= c <= "z":
            return chr(0x1D41A + ord(c) - ord("a"))
        if "A" <= c <= "Z":
            return chr(0x1D400 + ord(c) - ord("A"))
        return chr(0x1D7CE + int(c)) if c.isascii() and c.isdigit() else c

    return "".join(map(one, value))


def every_second(value: str, table: dict[int, int]) -> str:
    return "".join(c.translate(table) if i % 2 else c for i, c in enumerate(value))


def spelled(at: str, dot: str) -> Callable[[str], str]:
    return lambda value: value.replace("@", at).replace(".", dot)


# A disguise, and the types that it fits; None for all.
DISGUISES: dict[str, tuple[Callable[[str], str], set[str] | None]] = {
    "plain": (lambda v: v, None),
    "zero width": ("\u200b".join, None),
    "soft hyphen": ("\u00ad".join, None),
    "word joiner inside": (lambda v: v[:3] + "\u2060" + v[3:-2] + "\ufeff" + v[-2:], None),
    "full width": (full_width, None),
    "bold letters": (bold, None),
    "spaced": (" ".join, None),
    "dotted": (".".join, {"CREDIT_CARD", "US_SSN"}),
    "unicode hyphen": (
        lambda v: v.replace("-", "\u2011").replace(" ", "\u00a0"),
        {"PHONE", "US_SSN", "CREDIT_CARD", "IBAN"},
    ),
    "arabic digits": (lambda v: v.translate(ARABIC), {"PHONE", "US_SSN", "CREDIT_CARD", "IP_ADDRESS"}),
    "lookalike letters": (lambda v: every_second(v, LOOKALIKES), {"EMAIL", "IBAN", "GITHUB_TOKEN", "AWS_KEY"}),
    "[at] [dot]": (spelled(" [at] ", " [dot] "), {"EMAIL"}),
    "(at)(dot)": (spelled("(at)", "(dot)"), {"EMAIL"}),
    "at dot": (spelled(" at ", " dot "), {"EMAIL"}),
    "AT DOT": (spelled(" AT ", " DOT "), {"EMAIL"}),
    "{at}": (spelled("{at}", "."), {"EMAIL"}),
    "url": (lambda v: quote(v, safe=""), None),
    "url all": (lambda v: "".join(f"%{b:02X}" for b in v.encode()), None),
    "html entities": (lambda v: "".join(f"&#{ord(c)};" for c in v), None),
    "html hex": (lambda v: "".join(f"&#x{ord(c):x};" for c in v), None),
    "html escape": (html.escape, None),
    "json escape": (lambda v: "".join(f"\\u{ord(c):04x}" for c in v), None),
    "base64": (lambda v: base64.b64encode(v.encode()).decode(), None),
    "base64 url": (lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="), None),
    "hex": (lambda v: v.encode().hex(), None),
    "hex spaced": (lambda v: v.encode().hex(" "), None),
    "combining marks": (lambda v: "\u0336".join(v), None),
    "right-to-left": (lambda v: f"\u202d{v[:4]}\u202c\u202d{v[4:]}\u202c", None),
}


def disguised(document: Document) -> Iterable[Document]:
    text: str = document["text"]
    for number, span in enumerate(document["spans"]):
        if span["type"] not in TYPES:
            continue
        value = text[span["start"] : span["end"]]
        for name, (disguise, types) in DISGUISES.items():
            if types is not None and span["type"] not in types:
                continue
            hidden = disguise(value)
            yield {
                "id": f"{document['id']}/{number}/{name}",
                "disguise": name,
                "type": span["type"],
                "text": text[: span["start"]] + hidden + text[span["end"] :],
                "start": span["start"],
                "end": span["start"] + len(hidden),
            }


def score(gold: Iterable[Document], predictions: Iterable[Document]) -> None:
    found = {prediction["id"]: prediction["spans"] for prediction in predictions}
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in gold:
        covered: set[int] = set()
        for span in found.get(row["id"], []):
            covered.update(range(max(span["start"], row["start"]), min(span["end"], row["end"])))
        hit = 2 * len(covered) >= row["end"] - row["start"]
        for key in ((row["disguise"], "all"), (row["disguise"], row["type"])):
            counts[key][0] += hit
            counts[key][1] += 1
    for name in DISGUISES:
        whole = counts[name, "all"]
        if not whole[1]:
            continue
        parts = [
            f"{kind} {hit / of:.2f}"
            for (own, kind), (hit, of) in sorted(counts.items())
            if own == name != kind != "all"
        ]
        print(f"{name:<20}{whole[0] / whole[1]:>6.3f} of {whole[1]:>5}   {'  '.join(parts)}")


def rows(name: str) -> Iterable[Document]:
    with Path(name).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def main() -> None:
    match sys.argv[1:]:
        case ["write", gold]:
            for document in rows(gold):
                for row in disguised(document):
                    print(json.dumps(row, ensure_ascii=False))
        case ["score", gold, predictions]:
            score(rows(gold), rows(predictions))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
