"""The machine that a figure belongs to, and how figures are summed up."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory and kernel on one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    cores = len(os.sched_getaffinity(0))
    model = models[0] if models else platform.machine()
    return f"{model}, {cores} cores, {kib / 2**20:.0f} GiB, Linux {platform.release()}"


def percentile(values: Sequence[float], rank: float) -> float:
    """The value at a rank in percent, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * rank / 100))]


def percentiles(values: Sequence[float]) -> str:
    """P50, P95 and P99 of milliseconds, by rank."""
    return "  ".join(f"P{rank} {percentile(values, rank):8.1f} ms" for rank in (50, 95, 99))
