"""Draws a run of the bench: `chart.py RAW.json OUT.svg`. Runs in the peers' environment, which has matplotlib."""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure


def _p50(row: dict[str, Any]) -> float:
    return float(median(row["latencies_ms"]))


def _rate(row: dict[str, Any]) -> float:
    return float(row["per_second"])


def main(raw: str, out: str) -> None:
    data = json.loads(Path(raw).read_text())
    rows = [row for row in data["rows"] if row["steps"] == 4]
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    panels = (
        (axes[0], 1, "P50 of a four-step task, one in flight (ms)", _p50),
        (axes[1], 16, "tasks per second, 16 in flight", _rate),
    )
    for axis, in_flight, title, value in panels:
        for offset, fsync in ((-0.2, True), (0.2, False)):
            heights = [
                [
                    value(row)
                    for row in rows
                    if (row["system"], row["fsync"], row["in_flight"]) == (name, fsync, in_flight)
                ]
                for name in systems
            ]
            places = [place + offset for place, found in enumerate(heights) if found]
            bars = axis.barh(
                places, [median(found) for found in heights if found], 0.38, label=f"fsync {'on' if fsync else 'off'}"
            )
            axis.bar_label(bars, fmt="%.0f", padding=3)
        axis.set_yticks(range(len(systems)), systems)
        axis.invert_yaxis()
        axis.set_title(title)
        axis.margins(x=0.15)
    axes[0].axvline(20, color="grey", linestyle=":", label="aim")
    axes[1].axvline(100, color="grey", linestyle=":")
    axes[0].legend()
    figure.suptitle(f"{data['machine']}, {data['date'][:10]}, {data['revision']}", fontsize=9)
    figure.savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
