#!/usr/bin/env python3
"""Figures of a span scorer by source and by type, worst first.

    sources.py SCORER GOLD.jsonl PRED.jsonl

SCORER is a script with `pii GOLD PRED` that prints JSON with `micro`, `macro_f1_group`, `per_source_group`,
`per_group`, `leakage` and `clean_doc_accuracy`. GOLD is read in place and nothing of it is copied; where it is missing
this says so.
"""

import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    scorer, gold, predictions = map(Path, sys.argv[1:])
    missing = [str(path) for path in (scorer, gold, predictions) if not path.exists()]
    if missing:
        print(f"skipped: {', '.join(missing)} is not here")
        return
    command = [sys.executable, str(scorer), "pii", str(gold), str(predictions)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    micro, leakage = report["micro"]["group"], report["leakage"]
    print(
        f"micro F1 {micro['f1']:.3f}  precision {micro['p']:.3f}  recall {micro['r']:.3f}  "
        f"macro F1 {report['macro_f1_group']:.3f}  documents leaking {leakage['docs_leaking']:.3f}  "
        f"clean documents {report['clean_doc_accuracy']['acc']}"
    )
    for title in ("per_source_group", "per_group"):
        print(f"\n{title:<22}{'F1':>7}{'prec.':>7}{'recall':>7}{'right':>7}{'wrong':>7}{'missed':>7}")
        for name, row in sorted(report[title].items(), key=lambda item: item[1]["f1"]):
            figures = f"{row['f1']:>7.3f}{row['p']:>7.3f}{row['r']:>7.3f}{row['tp']:>7}{row['fp']:>7}{row['fn']:>7}"
            print(f"{name:<22}{figures}")


if __name__ == "__main__":
    main()
