"""The raw data of a run as tables, and as ratios against what was aimed at."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.machine import percentile
from bench.pipeline import hops

AIM_P50_MS = 20.0
AIM_PER_SECOND = 100.0
FLOOR_RATIO = 1.5
W5_AIM_P99_MS = 2000.0

Key = tuple[str, bool, int, int]
"""System, fsync, steps, in flight."""

Figures = tuple[float, float, float, float]
"""P50, P95, P99 in milliseconds, and how many per second: each the median of the rounds."""


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[Key, Figures]:
    """The medians of the rounds, in the order in which the rows came first."""
    rounds: dict[Key, list[Figures]] = {}
    for row in rows:
        latencies = row["latencies_ms"]
        p50, p95, p99 = (percentile(latencies, rank) for rank in (50, 95, 99))
        key = (row["system"], row["fsync"], row["steps"], row["in_flight"])
        rounds.setdefault(key, []).append((p50, p95, p99, row["per_second"]))
    return {
        key: (
            median(x[0] for x in found),
            median(x[1] for x in found),
            median(x[2] for x in found),
            median(x[3] for x in found),
        )
        for key, found in rounds.items()
    }


def text(data: Mapping[str, Any]) -> str:
    """Everything, for a terminal and for a Markdown file alike."""
    found = figures(data["rows"])
    synced = data["fsync_of_700_bytes_ms"]
    rounds = max((row["round"] for row in data["rows"]), default=0)
    lines = [
        f"{data['machine']}; {data['date']}; revision {data['revision']}; {rounds} round(s), medians",
        f"append 700 bytes and fsync: P50 {synced['p50']:.2f} ms, P99 {synced['p99']:.2f} ms",
    ]
    for fsync in (True, False):
        lines += _rows(found, fsync)
    lines += _ratios(found)
    for fsync, tasks in data["hops_ms"].items():
        lines += ["", f"One task in flight, echo arm, fsync {fsync}: where its time goes (mean of {len(tasks)})", ""]
        lines += ["| hop | mean ms | median ms | share |", "|---|---|---|---|"]
        table = hops.table(tasks)
        lines += [f"| {name} | {mean:.2f} | {middle:.2f} | {share:.0f} % |" for name, mean, middle, share in table]
        lines += [f"| sum | {sum(row[1] for row in table):.2f} | | {sum(row[3] for row in table):.0f} % |"]
    for system, used in data["cpu_ms_per_task"].items():
        lines += ["", f"Processor time per four-step task, {system}, 16 in flight, fsync on", ""]
        lines += ["| program | ms |", "|---|---|"]
        means = {name: median(one[name] for one in used) for name in used[0]}
        lines += [f"| {name} | {mean:.1f} |" for name, mean in sorted(means.items(), key=lambda item: -item[1])]
        lines += [f"| sum | {sum(means.values()):.1f} |"]
    for system, stored in data["stored_per_task"].items():
        counts = ", ".join(f"{stream} {count:.2f}" for stream, count in stored.items())
        lines += ["", f"messages stored per four-step task, {system}: {counts} (TIMERS is not synced, the others are)"]
    lines += [f"\nnot measured: {name}: {reason}" for name, reason in data["missing"].items()]
    return "\n".join(lines)


def _rows(found: Mapping[Key, Figures], fsync: bool) -> list[str]:
    chosen = {key: value for key, value in found.items() if key[1] is fsync}
    if not chosen:
        return []
    lines = ["", f"fsync {'on' if fsync else 'off'}", ""]
    lines += ["| system | steps | in flight | P50 ms | P95 ms | P99 ms | per second |", "|---|---|---|---|---|---|---|"]
    for (system, _, steps, in_flight), (p50, p95, p99, rate) in chosen.items():
        lines.append(f"| {system} | {steps} | {in_flight} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {rate:.0f} |")
    return lines


def _ratios(found: Mapping[Key, Figures]) -> list[str]:
    """The pipeline with the echo arm beside the others; above 1 is slower, or fewer per second."""
    lines: list[str] = []
    for fsync in (True, False):
        ours = {at: found.get(("pipeline, echo arm", fsync, 4, at)) for at in (1, 16)}
        alone, many = ours[1], ours[16]
        if alone is None or many is None:
            continue
        lines += ["", f"pipeline (echo arm) against others, fsync {'on' if fsync else 'off'}", ""]
        lines += ["| against | P50, one in flight | per second, 16 in flight |", "|---|---|---|"]
        for other in ("bare chain, two processes", "bare chain, one process", "DBOS", "Restate"):
            one, sixteen = found.get((other, fsync, 4, 1)), found.get((other, fsync, 4, 16))
            if one and sixteen:
                lines.append(
                    f"| {other} | {alone[0] / one[0]:.2f} × its time | {many[3] / sixteen[3]:.2f} × its rate |"
                )
    alone, many = (found.get(("pipeline, echo arm", True, 4, at)) for at in (1, 16))
    if alone and many:
        lines += ["", _aim("P50 of a four-step task, one in flight, fsync", alone[0], AIM_P50_MS, "ms")]
        lines += [_aim("tasks per second, 16 in flight, fsync", many[3], AIM_PER_SECOND, "/s", more=True)]
        if floor := found.get(("bare chain, two processes", True, 4, 1)):
            lines += [_aim("ratio to the bare chain (two processes), one in flight", alone[0] / floor[0], FLOOR_RATIO)]
    if w5 := found.get(("pipeline, sandbox", True, 2, 100)):
        lines += [_aim("P99 of 100 two-step tasks submitted at once, sandbox, fsync", w5[2], W5_AIM_P99_MS, "ms")]
    return lines


def _aim(what: str, is_: float, aim: float, unit: str = "", more: bool = False) -> str:
    met = is_ >= aim if more else is_ <= aim
    return f"- {what}: {is_:.3g} {unit} (aim {'≥' if more else '≤'} {aim:g} {unit}): {'met' if met else 'NOT met'}"
