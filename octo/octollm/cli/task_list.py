"""A list of tasks as a table."""

from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from octollm.cli.event_line import SHORT_ID
from octollm.cli.task_text import dollars, duration
from octollm.cli.terminal import shortened

_STYLES = {"completed": "green", "failed": "red", "rejected": "red", "cancelled": "yellow", "in_progress": "cyan"}


def table(tasks: list[dict[str, Any]], now: datetime) -> Table:
    """One row a task: id, status, steps done, age, duration, cost, goal (or why it was rejected)."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", "status", "steps", "age", "took", "cost"):
        rows.add_column(heading, no_wrap=True)
    rows.add_column("goal", overflow="ellipsis", no_wrap=True)
    for task in tasks:
        error = task["error"] or {}
        status = f"{task['status']} {error.get('code', '')}".strip()
        if task["status"] in ("pending", "in_progress"):
            status = f"{task['status']} ({task['phase']})"
        age = (now - datetime.fromisoformat(task["created_at"])).total_seconds()
        rows.add_row(
            Text(task["task_id"][:SHORT_ID], style="cyan"),
            Text(status, style=_STYLES.get(task["status"], "")),
            f"{task['steps']['done']}/{task['steps']['total']}",
            _age(age),
            duration(task["duration_ms"]) if task["duration_ms"] is not None else "",
            dollars(task["cost_micro_usd"]),
            Text(shortened(task["goal"] or error.get("message", ""), 200)),
        )
    return rows


def _age(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
