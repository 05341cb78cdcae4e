#!/usr/bin/env python3
"""Validates the injection model across sources: what it says of a source that it was not trained on.

    OCTO_EVAL_DIR=… python -m bench.screen.crossval [--flag LOGIT]

For every source of the dev data a model is trained without it, on all others and our own corpus, and judges it. The
threshold is one for all, in thousandths of a logit: by default that of the committed model. `rules` is what the rules
alone flag, `model` the model alone, `both` the two together, which is what the screen does.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from bench.screen import rows, train

Prediction = dict[str, Any]


def auc(predictions: list[Prediction]) -> float:
    """Chance that an injection scores above an honest text, by ranks; ties count half."""
    ranked = sorted(predictions, key=combined)
    attacks = [row for row in ranked if row["label"]]
    honest = len(ranked) - len(attacks)
    if not attacks or not honest:
        return float("nan")
    rank, total, at = 0.0, 0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and combined(ranked[end]) == combined(ranked[at]):
            end += 1
        rank += sum(row["label"] for row in ranked[at:end]) * (at + 1 + end) / 2
        total += end - at
        at = end
    return (rank - len(attacks) * (len(attacks) + 1) / 2) / (len(attacks) * honest)


def combined(row: Prediction) -> float:
    """A score in the order of the screen's: what the rules find raises that of the model."""
    return float(row["logit"] + (0, 1500, 3000)[row["rules"]])


def share(predictions: list[Prediction], label: int, flag: int, by: str) -> str:
    own = [row for row in predictions if row["label"] == label]
    if not own:
        return f"{'':>7}"
    hit = sum((by != "rules" and row["logit"] >= flag) or (by != "model" and row["rules"] > 0) for row in own)
    return f"{100 * hit / len(own):>6.1f}%"


def table(predictions: list[Prediction], flag: int) -> None:
    columns = f"{'rules':>7}{'model':>7}{'both':>7}"
    print(f"{'source left out':<20}{'attacks':>8}{columns}   {'honest':>8}{columns}{'AUC':>8}")
    groups = sorted({row["group"] for row in predictions})
    for group in [*groups, "all"]:
        own = [row for row in predictions if group in (row["group"], "all")]
        cells = [
            f"{sum(row['label'] == label for row in own):>8}"
            + "".join(share(own, label, flag, by) for by in ("rules", "model", "both"))
            for label in (1, 0)
        ]
        print(f"{group:<20}{cells[0]}   {cells[1]}{auc(own):>8.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flag", type=int, default=train.FLAG)
    parser.add_argument("--out", type=Path, help="where to write the predictions")
    arguments = parser.parse_args()
    path = rows.dev_path()
    if path is None:
        print("skipped: OCTO_EVAL_DIR names no folder with injection_dev.jsonl")
        return
    lines = train.lines(rows.weighted(rows.dev_rows(path) + rows.own_rows()))
    output = subprocess.run(
        [train.example("train"), "crossval", train.LEXICON], input=lines, stdout=subprocess.PIPE, text=True, check=True
    )
    predictions = [json.loads(line) for line in output.stdout.splitlines()]
    if arguments.out is not None:
        arguments.out.write_text(output.stdout, encoding="utf-8")
    table(predictions, arguments.flag)
    for rate in (0.005, 0.01, 0.02, 0.05):
        honest = sorted((row["logit"] for row in predictions if not row["label"] and not row["rules"]), reverse=True)
        at = honest[int(rate * len(honest))]
        attacks = [row for row in predictions if row["label"]]
        hit = sum(row["logit"] > at or row["rules"] > 0 for row in attacks) / len(attacks)
        print(f"at {rate:.1%} false alarms of the model: flag above {at:.0f}, recall {hit:.3f}")


if __name__ == "__main__":
    main()
