"""Start to finish of `/usr/bin/true`, in turn: plain, in bubblewrap with all namespaces, in the sandbox.

`python -m bench.executor` measures (n >= 200), `python -m bench.executor soak N` runs N steps
and fails where anything is left.
"""

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench import machine

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "target/release"
LEAST = 200


def run(*arguments: str) -> dict[str, Any]:
    """Builds what is measured, runs it, and reads the one JSON object that it prints."""
    build = ["cargo", "build", "--locked", "--release", "-p", "octollm-executor", "--bins", "--example", "latency"]
    subprocess.run(build, cwd=ROOT, check=True)
    command = [str(BUILT / "examples/latency"), str(BUILT / "octollm-executor"), *arguments]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    loaded: dict[str, Any] = json.loads(printed)
    return loaded


def measure(count: int) -> None:
    """Prints the percentiles of each row, and the ratio of the medians."""
    if shutil.which("bwrap") is None:
        print("bubblewrap is not installed (Debian package bubblewrap): its row is left out")
    print(f"{machine.describe()}; load average {os.getloadavg()[0]:.1f}; n = {count}, in turn")
    times: dict[str, list[float]] = run("measure", str(count))
    for name, values in times.items():
        print(f"{name:14} {machine.percentiles(values)}")
    if "bubblewrap" in times:
        sandbox, bubblewrap = (machine.percentile(times[name], 50) for name in ("sandbox", "bubblewrap"))
        print(f"sandbox / bubblewrap, medians: {sandbox / bubblewrap:.2f} (no more than 1; aim 0.7)")


def soak(count: int) -> int:
    """Prints what the process held before and after; 1 where that grew."""
    held = run("soak", str(count))
    print(f"{count} steps; before {held['before']}, after {held['after']}")
    return int(held["before"] != held["after"])


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="bench.executor", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["measure", "soak"], default="measure")
    parser.add_argument("count", nargs="?", type=int, default=LEAST)
    arguments = parser.parse_args()
    if arguments.what == "soak":
        return soak(arguments.count)
    measure(max(arguments.count, LEAST))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
