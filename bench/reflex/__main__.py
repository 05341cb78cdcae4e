"""Reflex under load: `python -m bench.reflex [--seconds 60]`. Needs `wrk`, and a release build with examples.

In process: microseconds by size. Over HTTP, 100 connections on loopback, 1 KiB texts, the load beside the server:
Redis and rate limits on, the cache off and on, next to a bare handler that parses, checks and answers the same.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.machine import describe
from octollm.stack import SERVICES, Stack, StackOptions

RELEASE = Path(__file__).resolve().parents[2] / "target" / "release"
CONNECTIONS = 100
LIMIT = "3000000"
"""The largest that can be set, 50,000 a second: every request asks, none is refused."""

PROSE = (
    "Please read report NNNNNNNN in the shared folder, compare the figures of the last two quarters and write a "
    "summary of at most two pages to ada@example.org. Version 10.2.14 was faster, says +49 30 1234567. "
)


def body() -> bytes:
    text = (PROSE * 8)[:990]
    return json.dumps({"text": text, "role": "output"}).encode()


async def measured(url: str, seconds: int, body_file: Path, vary: bool) -> dict[str, float]:
    """One run of wrk after a short one that warms up."""
    script = Path(__file__).with_name("load.lua")
    environment = {**os.environ, "BODY": str(body_file), "VARY": "1" if vary else "0"}
    out = b""
    for duration in (2, seconds):
        arguments = ["-t1", f"-c{CONNECTIONS}", f"-d{duration}s", "-s", str(script), f"{url}/process"]
        wrk = await asyncio.create_subprocess_exec("wrk", *arguments, stdout=subprocess.PIPE, env=environment)
        out, _ = await wrk.communicate()
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


@asynccontextmanager
async def bare() -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(RELEASE / "examples" / "bare", stdout=subprocess.PIPE)
    assert server.stdout
    try:
        yield "http://" + (await server.stdout.readline()).decode().strip()
    finally:
        server.terminate()
        await server.wait()


@asynccontextmanager
async def reflex(memory_bytes: int) -> AsyncIterator[str]:
    environment = {
        "OCTO_REFLEX__LIMITS__PER_ENDPOINT__PROCESS": LIMIT,
        "OCTO_REFLEX__LIMITS__PER_IP": LIMIT,
        "OCTO_REFLEX__CACHE__MEMORY_BYTES": str(memory_bytes),
        "OCTO_LOG": "warn",
    }
    options = StackOptions(
        ephemeral=True,
        ports="free",
        accounts=False,
        servers=frozenset({"nats", "valkey"}),
        services=tuple(service for service in SERVICES if service.name == "reflex"),
        environment=environment,
        bin_dir=RELEASE,
    )
    async with Stack(options) as stack:
        yield stack.url("reflex")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reflex")
    parser.add_argument("--seconds", type=int, default=60, help="how long each row is under load")
    seconds = parser.parse_args().seconds
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: apt-get install wrk")
    print(f"{describe()}; load average {os.getloadavg()[0]:.1f}\n")
    in_process = await asyncio.create_subprocess_exec(RELEASE / "examples" / "distribution")
    await in_process.wait()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "body.json"
        file.write_bytes(body())
        rows = []
        async with bare() as url:
            rows.append(("bare handler", await measured(url, seconds, file, vary=False)))
        async with reflex(0) as url:
            rows.append(("reflex, cache off", await measured(url, seconds, file, vary=False)))
        async with reflex(32 * 1024 * 1024) as url:
            rows.append(("reflex, cache on, texts that differ", await measured(url, seconds, file, vary=True)))
            rows.append(("reflex, cache on, one text", await measured(url, seconds, file, vary=False)))
    ceiling = rows[0][1]["requests"] / rows[0][1]["seconds"]
    print(f"\n{CONNECTIONS} connections, {len(body())} B, {seconds} s each, limits in Redis; milliseconds")
    print(f"{'':<38}{'requests/s':>11}{'of bare':>9}{'P50':>8}{'P95':>8}{'P99':>8}{'max':>8}{'errors':>8}")
    for name, row in rows:
        rate = row["requests"] / row["seconds"]
        times = "".join(f"{row[key]:>8.2f}" for key in ("p50", "p95", "p99", "max"))
        print(f"{name:<38}{rate:>11.0f}{rate / ceiling:>9.2f}{times}{row['errors']:>8.0f}")
    print(f"load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
