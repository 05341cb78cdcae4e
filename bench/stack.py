"""How long a stack takes to start: `python -m bench.stack`. Median of five, servers alone and with all services."""

import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench.machine import describe
from octollm.stack import Stack, StackOptions
from octollm.stack.services import SERVICES, Service

ROUNDS = 5


async def start_seconds(data_dir: Path, services: tuple[Service, ...]) -> float:
    stack = Stack(StackOptions(data_dir=data_dir, ports="free", services=services))
    began = time.monotonic()
    await stack.start()
    seconds = time.monotonic() - began
    await stack.stop()
    return seconds


async def main() -> None:
    print(describe())
    for name, services in (("servers", ()), ("servers and services", SERVICES)):
        cold, warm = [], []
        for _ in range(ROUNDS):
            folder = Path(tempfile.mkdtemp(prefix="octollm-bench-"))
            try:
                cold.append(await start_seconds(folder / "data", services))
                warm.append(await start_seconds(folder / "data", services))
            finally:
                shutil.rmtree(folder)
        print(f"start of {name}: cold {statistics.median(cold):.2f} s, warm {statistics.median(warm):.2f} s", end=" ")
        print(f"(median of {ROUNDS}; worst {max(cold):.2f} s, {max(warm):.2f} s)")


if __name__ == "__main__":
    asyncio.run(main())
