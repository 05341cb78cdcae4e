"""What a task costs in the pipeline, beside the broker's own floor and two peers: `make bench-pipeline`.

`python -m bench.pipeline [--quick] [--rounds N] [--only NAME …] [--out FOLDER]`. Systems are measured in turn, round
after round (without fsync in every second one), each on a data directory of its own; a figure is the median of its
rounds. Raw data go to `target/bench/pipeline.json`, a chart to `pipeline.svg` beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.machine import describe, percentile
from bench.pipeline import report, systems
from bench.pipeline.systems import (
    AWAITED,
    DBOS,
    ECHO,
    PEERS,
    PING_PONG,
    RESTATE,
    ROOT,
    SANDBOX,
    Result,
    Row,
    Unavailable,
)
from octollm.stack import StackOptions, services

FULL = {1: 30, 16: 96, 64: 128, 100: 100}
QUICK = {1: 20, 16: 48, 100: 100}
"""Tasks by how many are in flight."""

PUBLISHES = 12
"""What a four-step task writes to synced streams, until the first round has counted it."""


class Bench:
    """Runs rounds and collects."""

    def __init__(self, loads: dict[int, int], only: Sequence[str]) -> None:
        self._loads = loads
        self._only = only
        self._publishes = PUBLISHES
        self.rows: list[dict[str, Any]] = []
        self.stored: dict[str, dict[str, float]] = {}
        self.hops: dict[str, list[dict[str, float]]] = {}
        self.cpu: dict[str, list[dict[str, float]]] = {}
        self.missing: dict[str, str] = {}

    async def round(self, number: int, fsync: bool) -> None:
        """Every system once."""
        order: list[tuple[str, Callable[[Sequence[Row]], Awaitable[Result]]]] = [
            (ECHO, systems.echo),
            (PING_PONG, lambda rows: systems.ping_pong(rows, self._publishes)),
            (AWAITED, lambda rows: systems.awaited_chain(rows, self._publishes)),
            (DBOS, systems.dbos),
            (RESTATE, systems.restate),
            (SANDBOX, systems.sandbox),
        ]
        for name, run in order:
            if self._only and not any(part in name for part in self._only):
                continue
            rows = [Row(name, fsync, in_flight, count) for in_flight, count in self._loads.items()]
            if name == SANDBOX:
                rows.append(Row(name, fsync, in_flight=100, count=100, steps=2))
            began = time.perf_counter()
            try:
                result = await run(rows)
            except Unavailable as error:
                self.missing[name] = str(error)
                continue
            print(
                f"round {number}, fsync {'on' if fsync else 'off'}: {name} in {time.perf_counter() - began:.0f} s",
                file=sys.stderr,
            )
            self._take(number, name, fsync, result)

    def _take(self, number: int, name: str, fsync: bool, result: Result) -> None:
        for row, measured in result.rows:
            self.rows.append(
                {
                    "round": number,
                    "system": row.system,
                    "fsync": row.fsync,
                    "steps": row.steps,
                    "in_flight": row.in_flight,
                    "per_second": measured.per_second,
                    "load": os.getloadavg()[0],
                    "latencies_ms": measured.latencies_ms,
                }
            )
        if result.stored:
            self.stored[name] = result.stored
            self._publishes = round(result.stored["COMMANDS"] + result.stored["EVENTS"])
        if result.cpu and fsync:
            self.cpu.setdefault(name, []).append(result.cpu)
        if result.hops:
            self.hops.setdefault("on" if fsync else "off", []).extend(result.hops)


def fsync_ms() -> list[float]:
    """What it costs here to append 700 bytes to a file and sync it, 200 times."""
    took = []
    with tempfile.TemporaryFile(prefix="octollm-bench-") as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(700))
            file.flush()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return took


def revision() -> str:
    """What is measured: the commit, and whether the tree differs from it."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(QUICK if arguments.quick else FULL, arguments.only)
    synced = fsync_ms()
    for number in range(1, (1 if arguments.quick else arguments.rounds) + 1):
        await bench.round(number, fsync=True)
        if number % 2 and not arguments.quick:
            await bench.round(number, fsync=False)
    return {
        "machine": describe(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "binaries": str(Path(services.find(("octollm-executor",), StackOptions().bin_dir)[0]).parent),
        "command": "python -m bench.pipeline " + " ".join(sys.argv[1:]),
        "fsync_of_700_bytes_ms": {f"p{rank}": percentile(synced, rank) for rank in (50, 95, 99)},
        "rows": bench.rows,
        "stored_per_task": bench.stored,
        "hops_ms": bench.hops,
        "cpu_ms_per_task": bench.cpu,
        "missing": bench.missing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round with fsync, few tasks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="systems whose name contains one of these"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "target" / "bench")
    arguments = parser.parse_args()
    data = uvloop.run(run(arguments))
    arguments.out.mkdir(parents=True, exist_ok=True)
    raw = arguments.out / "pipeline.json"
    raw.write_text(json.dumps(data) + "\n", encoding="utf-8")
    print(report.text(data))
    print(f"\nraw data: {raw}")
    chart = arguments.out / "pipeline.svg"
    python = PEERS / "venv" / "bin" / "python"
    if python.exists():
        subprocess.run([python, ROOT / "bench" / "pipeline" / "chart.py", raw, chart], check=True)
        print(f"chart: {chart}")
    else:
        print("no chart: matplotlib is not installed (make bench-pipeline installs it)")


if __name__ == "__main__":
    main()
