"""The machine that a figure belongs to."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory and kernel on one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    cores = len(os.sched_getaffinity(0))
    model = models[0] if models else platform.machine()
    return f"{model}, {cores} cores, {kib / 2**20:.0f} GiB, Linux {platform.release()}"


def percentiles(values: list[float]) -> str:
    """P50, P95 and P99 of milliseconds, by rank."""
    ordered = sorted(values)
    at = {q: ordered[min(len(ordered) - 1, int(len(ordered) * q / 100))] for q in (50, 95, 99)}
    return "  ".join(f"P{q} {value:8.1f} ms" for q, value in at.items())
