"""Where a task's time goes: the way of one task cut where the broker stamps what it stores.

Every hop ends where the next begins, so that they add up to what the client measures. A stamp is taken before the
message is synced: a hop that begins with a stored message begins with its fsync.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, median

from octollm.events.envelope import Event


@dataclass(frozen=True, slots=True)
class Trace:
    """A task: submitted, its end heard of (ns, Unix), and its events."""

    submitted: int
    heard: int
    events: Sequence[Event]


def read_spans(path: Path) -> dict[int, int]:
    """When the echo arm got what (ns, Unix), by stream sequence; the first delivery counts."""
    found: dict[int, int] = {}
    for line in path.read_text().splitlines():
        seq, at = map(int, line.split())
        found.setdefault(seq, at)
    return found


def split(trace: Trace, delivered: Mapping[int, int]) -> dict[str, float]:
    """Milliseconds by hop; those of several steps are summed."""
    found: dict[str, float] = {}
    name, at = "submitted", trace.submitted

    def until(to: str, moment: int) -> None:
        nonlocal name, at
        label = f"{name} → {to}"
        found[label] = found.get(label, 0.0) + (moment - at) / 1e6
        name, at = to, moment

    for event in trace.events:
        until(event.kind, _nanoseconds(event.stored_at))
        if event.kind == "step.dispatched":
            until("at the arm", delivered[event.seq])
    until("heard of", trace.heard)
    return found


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def table(tasks: Sequence[Mapping[str, float]]) -> list[tuple[str, float, float, float]]:
    """Hop, mean and median in milliseconds, share of the mean in percent; the means add up, medians do not."""
    names = list(dict.fromkeys(name for task in tasks for name in task))
    means = {name: fmean(task.get(name, 0.0) for task in tasks) for name in names}
    total = sum(means.values())
    return [
        (name, means[name], median(task.get(name, 0.0) for task in tasks), 100 * means[name] / total) for name in names
    ]
