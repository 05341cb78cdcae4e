#!/usr/bin/env python3
"""Expands our own corpus of injections and honest texts.

    python -m bench.screen.corpus          writes corpus/injection/heldout.jsonl
    python -m bench.screen.corpus --check  fails if that file is not what the templates give

The templates are `corpus/injection/{attacks,honest}.txt`: `= family.language` opens a section, every other line is a
template with `{a|b}` for a choice, `[x]` for what may be missing, and `{name}` for one of the list `@name = a | b`.
Choices nest. Every fifth template of a section is held out: none of its texts is trained on. Deterministic: each
template has a random source of its own, seeded with its text.
"""

import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2] / "reflex" / "screen" / "corpus" / "injection"
HELDOUT = ROOT / "heldout.jsonl"
FILES = {"attacks.txt": 1, "honest.txt": 0}
# Texts from one template: as many as it has choices, within these.
FEWEST, MOST = 4, 24
HELDOUT_TEXTS = 4

INNERMOST = re.compile(r"\{([^{}]*)\}|\[([^][{}]*)\]")


def expand(template: str, lists: dict[str, list[str]], source: random.Random) -> str:
    """One text of a template, its choices made from the innermost to the outermost."""

    kept: list[str] = []

    def choose(found: re.Match[str]) -> str:
        choice: str | None = found[1]
        optional: str | None = found[2]
        if choice is None:
            return (optional or "") if source.random() < 0.5 else ""
        if choice in lists:
            return source.choice(lists[choice])
        if "|" in choice:
            return source.choice(choice.split("|"))
        # Braces of the text itself.
        kept.append(found.group())
        return f"\x00{len(kept) - 1}\x01"

    while (text := INNERMOST.sub(choose, template)) != template:
        template = text
    while (text := re.sub("\x00(\\d+)\x01", lambda found: kept[int(found[1])], template)) != template:
        template = text
    return template


def sections() -> Iterator[tuple[int, str, int, str, dict[str, list[str]]]]:
    """Label, section, number in the section, template and lists of every template."""
    for name, label in FILES.items():
        lists: dict[str, list[str]] = {}
        section, number = "", 0
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("# "):
                continue
            if line.startswith("@"):
                key, _, values = line[1:].partition(" = ")
                lists[key] = [value.strip() for value in values.split(" | ")]
            elif line.startswith("= "):
                section, number = line[2:], 0
            else:
                yield label, section, number, line, lists
                number += 1


def corpus() -> Iterator[dict[str, Any]]:
    """Every text as `{id, label, section, heldout, text}`, each once."""
    seen: set[str] = set()
    for label, section, number, template, lists in sections():
        heldout = number % 5 == 3
        source = random.Random(hashlib.sha256(template.encode()).digest())
        choices = template.count("|") + template.count("[") + 4 * len(re.findall(r"\{\w+\}", template))
        texts = HELDOUT_TEXTS if heldout else min(MOST, max(FEWEST, choices))
        for index in range(texts):
            text = expand(template, lists, source).strip()
            text = text[:1].upper() + text[1:] if source.random() < 0.8 else text
            if text in seen:
                continue
            seen.add(text)
            kind = "attack" if label else "honest"
            yield {
                "id": f"{kind}.{section}.{number}.{index}",
                "label": label,
                "section": section,
                "heldout": heldout,
                "text": text,
            }


def heldout() -> str:
    rows = ({key: row[key] for key in ("id", "label", "text")} for row in corpus() if row["heldout"])
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    match sys.argv[1:]:
        case []:
            HELDOUT.write_text(heldout(), encoding="utf-8")
        case ["--check"]:
            if HELDOUT.read_text(encoding="utf-8") != heldout():
                sys.exit(f"{HELDOUT.name} is not what the templates give: run python -m bench.screen.corpus")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
