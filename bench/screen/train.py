#!/usr/bin/env python3
"""Trains the injection model: `model/injection.bin` and its card.

    OCTO_EVAL_DIR=… python -m bench.screen.train

Rows are our own corpus and the dev data; without that data nothing is trained, since the committed file could not be
reproduced. Byte for byte the same on every machine: see `examples/train.rs`.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.screen import rows

ROOT = Path(__file__).resolve().parents[2]
SCREEN = ROOT / "reflex" / "screen"
LEXICON = SCREEN / "model" / "lexicon.toml"
MODEL = SCREEN / "model" / "injection.bin"
RULES = SCREEN / "rules"
CARD = SCREEN / "model" / "card.json"

# Thousandths of a logit from which a window is flagged and blocked, chosen by bench.screen.crossval.
FLAG = 1250
BLOCK = 2600


def example(name: str) -> Path:
    """Builds an example of the crate and says where it is."""
    build = ["cargo", "build", "--locked", "--release", "--quiet", "-p", "octollm-screen", "--features", "training"]
    subprocess.run([*build, "--example", name], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "examples" / name


def lines(texts: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    path = rows.dev_path()
    if path is None:
        sys.exit("OCTO_EVAL_DIR names no folder with injection_dev.jsonl: nothing is trained")
    dev, own = rows.dev_rows(path), rows.own_rows()
    texts = lines(rows.weighted(dev + own))
    subprocess.run([example("train"), "fit", LEXICON, MODEL, str(FLAG), str(BLOCK)], input=texts, text=True, check=True)
    card = {
        "model": {"file": MODEL.name, "bytes": MODEL.stat().st_size, "sha256": digest(MODEL)},
        "lexicon": {"file": LEXICON.name, "sha256": digest(LEXICON)},
        # The model learns from texts without their personal data, as the screen scores them.
        "rules": {
            "sha256": hashlib.sha256(b"".join(path.read_bytes() for path in sorted(RULES.glob("*.toml")))).hexdigest()
        },
        "rows": {"sha256": hashlib.sha256(texts.encode()).hexdigest(), "dev": len(dev), "own": len(own)},
        "dev_data": {"file": path.name, "sha256": rows.dev_digest(path)},
        "thresholds_in_thousandths_of_a_logit": {"flag": FLAG, "block": BLOCK},
    }
    CARD.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(CARD.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
