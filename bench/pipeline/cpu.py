"""Processor time by program, its children's included: unlike latencies, it hardly depends on what else runs here."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICK = 1000 / os.sysconf("SC_CLK_TCK")


def milliseconds(programs: Mapping[int, str]) -> dict[str, float]:
    """Processor time so far of each program (by pid) with all its descendants, and of this process (`client`)."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        parents[int(entry.name)] = int(fields[1])
        # Its own, and of the children that it has waited for (proc(5): utime, stime, cutime, cstime).
        used[int(entry.name)] = sum(map(int, fields[11:15])) * _TICK
    found = dict.fromkeys(programs.values(), 0.0)
    for pid, took in used.items():
        at = pid
        while at not in programs and at in parents:
            at = parents[at]
        if at in programs:
            found[programs[at]] += took
    times = os.times()
    found["client"] = (times.user + times.system) * 1000
    return found
