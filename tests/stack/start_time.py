"""Measures how long the three servers take to be ready, fsync on: ``python tests/stack/start_time.py [runs]``.

Cold is a fresh data directory (initdb, keys, the database), warm the same directory again. The interpreter's own start
isn't in the figure; the imports that the probes need are.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile

ONE = """
import asyncio, sys, time
from pathlib import Path
from octollm.stack import Stack, StackOptions

async def main():
    began = time.monotonic()
    async with Stack(StackOptions(data_dir=Path(sys.argv[1]), ports="free", services=(), bootstrap=None)):
        print(time.monotonic() - began)

asyncio.run(main())
"""


def seconds(data_dir: str) -> float:
    ran = subprocess.run([sys.executable, "-c", ONE, data_dir], check=True, capture_output=True, text=True)
    return float(ran.stdout)


def main(runs: int) -> None:
    cold, warm = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="octollm-start-") as data_dir:
            cold.append(seconds(data_dir))
            warm.append(seconds(data_dir))
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}")
    for name, figures in (("cold", cold), ("warm", warm)):
        shown = " ".join(f"{figure:.2f}" for figure in figures)
        print(f"{name}  median {statistics.median(figures):.2f} s  ({shown})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
