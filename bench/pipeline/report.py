"""The raw data of a run as tables, and as ratios against what was aimed at."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.machine import percentile
from bench.pipeline import hops
from bench.pipeline.systems import AWAITED, DBOS, ECHO, PING_PONG, RESTATE, SANDBOX, STEPS

AIM_P50_MS = 20.0
AIM_PER_SECOND = 100.0
FLOOR_RATIO = 1.5
W5_AIM_P99_MS = 2000.0

Key = tuple[str, bool, int, int]
"""System, fsync, steps, in flight."""

_P50, _RATE = 0, 3

Figures = tuple[float, float, float, float]
"""P50, P95, P99 in milliseconds, and how many per second (at _P50 … _RATE)."""


def by_round(rows: Sequence[Mapping[str, Any]]) -> dict[Key, dict[int, Figures]]:
    """What each round gave, in the order in which the rows came first."""
    found: dict[Key, dict[int, Figures]] = {}
    for row in rows:
        latencies = row["latencies_ms"]
        p50, p95, p99 = (percentile(latencies, rank) for rank in (50, 95, 99))
        key = (row["system"], row["fsync"], row["steps"], row["in_flight"])
        found.setdefault(key, {})[row["round"]] = (p50, p95, p99, row["per_second"])
    return found


def medians(rounds: Mapping[int, Figures]) -> Figures:
    """Of the rounds, figure by figure."""
    p50, p95, p99, rate = (median(figures) for figures in zip(*rounds.values(), strict=True))
    return p50, p95, p99, rate


def ratio(ours: Mapping[int, Figures], theirs: Mapping[int, Figures], figure: int) -> float:
    """The median of the rounds' ratios: what slows a whole round hardly counts."""
    return median(ours[number][figure] / theirs[number][figure] for number in ours.keys() & theirs.keys())


def text(data: Mapping[str, Any]) -> str:
    """Everything, for a terminal and for a Markdown file alike."""
    rounds = by_round(data["rows"])
    found = {key: medians(figures) for key, figures in rounds.items()}
    synced = data["fsync_of_700_bytes_ms"]
    load = [row["load"] for row in data["rows"]]
    count = max(row["round"] for row in data["rows"])
    lines = [
        f"{data['machine']}; {data['date']}; revision {data['revision']}; `{data['command']}`",
        f"binaries of {data['binaries']}; medians of {count} round(s); load average {min(load):.1f} to {max(load):.1f}",
        f"append 700 bytes and fsync: P50 {synced['p50']:.2f} ms, P99 {synced['p99']:.2f} ms",
    ]
    for fsync in (True, False):
        lines += _rows(found, fsync)
    lines += _ratios(rounds)
    lines += _aims(rounds, found)
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


def _ratios(rounds: Mapping[Key, Mapping[int, Figures]]) -> list[str]:
    """The pipeline with the echo arm beside the others."""
    lines: list[str] = []
    for fsync in (True, False):
        alone, many = (ECHO, fsync, STEPS, 1), (ECHO, fsync, STEPS, 16)
        compared = []
        for other in (PING_PONG, AWAITED, DBOS, RESTATE):
            one, sixteen = (other, fsync, STEPS, 1), (other, fsync, STEPS, 16)
            if {alone, many, one, sixteen} <= rounds.keys():
                time, rate = ratio(rounds[alone], rounds[one], _P50), ratio(rounds[many], rounds[sixteen], _RATE)
                compared.append(f"| {other} | {time:.2f} × its time | {rate:.2f} × its rate |")
        if compared:
            lines += ["", f"The pipeline (echo arm) against others, fsync {'on' if fsync else 'off'}", ""]
            lines += ["| against | P50, one in flight | per second, 16 in flight |", "|---|---|---|", *compared]
    return lines


def _aims(rounds: Mapping[Key, Mapping[int, Figures]], found: Mapping[Key, Figures]) -> list[str]:
    """What was aimed at, with fsync, and whether it is met."""
    lines = [""]
    alone, many = (ECHO, True, STEPS, 1), (ECHO, True, STEPS, 16)
    if alone in found and many in found:
        lines.append(_aim("P50 of a four-step task, one in flight, ms", found[alone][_P50], AIM_P50_MS))
        lines.append(_aim("tasks per second, 16 in flight", found[many][_RATE], AIM_PER_SECOND, more=True))
        for other, aim in ((PING_PONG, FLOOR_RATIO), (DBOS, 1.0), (RESTATE, 1.0)):
            if theirs := rounds.get((other, True, STEPS, 1)):
                lines.append(_aim(f"P50 against {other}, one in flight", ratio(rounds[alone], theirs, _P50), aim))
        for other in (DBOS, RESTATE):
            if theirs := rounds.get((other, True, STEPS, 16)):
                rate = ratio(rounds[many], theirs, _RATE)
                lines.append(_aim(f"rate against {other}, 16 in flight", rate, 1.0, more=True))
    if w5 := found.get((SANDBOX, True, 2, 100)):
        lines.append(_aim("P99 of 100 two-step tasks submitted at once, sandbox, ms", w5[2], W5_AIM_P99_MS))
    return lines


def _aim(what: str, is_: float, aim: float, more: bool = False) -> str:
    met = is_ >= aim if more else is_ <= aim
    return f"- {what}: {is_:.3g} (aim {'≥' if more else '≤'} {aim:g}): {'met' if met else '**not met**'}"
