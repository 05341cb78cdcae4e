"""A local stack as text: what starts and how long it takes, what runs, where it answers."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from octollm.cli.task_text import duration
from octollm.cli.terminal import printable
from octollm.stack import Progress, StackState, State

STACK = "stack"

_MARKS = {
    State.STARTING: ("●", "yellow"),
    State.READY: ("✓", "green"),
    State.RESTARTING: ("↻", "yellow"),
    State.STOPPING: ("●", "yellow"),
    State.STOPPED: ("–", "dim"),
    State.FAILED: ("✗", "red"),
}


class Starting:
    """What was reported so far, one line a program, in the order in which they began."""

    def __init__(self) -> None:
        self._latest: dict[str, Progress] = {}

    def add(self, progress: Progress) -> None:
        """Takes a report."""
        if progress.name != STACK:
            self._latest[progress.name] = progress

    def __rich__(self) -> Text:
        return Text("\n").join(report(progress) for progress in self._latest.values())


def report(progress: Progress) -> Text:
    """One program's state and how long it took."""
    mark, style = _MARKS[progress.state]
    text = Text()
    text.append(f"  {mark} ", style=style)
    text.append(f"{progress.name:<13}")
    text.append(f"{progress.state.value:<11}", style="dim")
    text.append(f"{duration(progress.seconds * 1000):>9}", style="dim")
    if progress.detail:
        text.append(f"  {printable(progress.detail)}", style=style)
    return text


def ready(state: StackState, data_dir: str, seconds: float, *, kept: bool) -> Text:
    """Where everything answers, and what to do next."""
    text = Text()
    text.append(f"ready after {duration(seconds * 1000)}", style="bold green")
    text.append(f"  data in {data_dir} ({'kept' if kept else 'forgotten at the end'})\n")
    for process in state.processes:
        text.append(f"  {process.name:<13}{process.address}\n")
    text.append("  next: ", style="cyan")
    return text.append('octo submit "Echo hello world" --watch', style="bold")


def table(state: StackState) -> Table:
    """One row a program."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "state", "address", "pid", "restarts"):
        rows.add_column(heading, no_wrap=True)
    for process in state.processes:
        mark, style = _MARKS[process.state]
        rows.add_row(
            process.name,
            Text(f"{mark} {process.state.value}", style=style),
            process.address,
            str(process.pid or ""),
            str(process.restarts or ""),
        )
    return rows


def document(state: StackState) -> dict[str, Any]:
    """The stack for machines; passwords stay in its state file."""
    return {
        "version": state.version,
        "state": state.state.value,
        "pid": state.pid,
        "started_at": state.started_at,
        "processes": [
            {
                "name": process.name,
                "kind": process.kind.value,
                "state": process.state.value,
                "pid": process.pid,
                "address": process.address,
                "restarts": process.restarts,
                "log": process.log,
            }
            for process in state.processes
        ],
    }
