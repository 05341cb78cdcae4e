"""Dead letters for people: a table, one in full, and what can be done about it."""

import json
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from octollm.cli.dead_letters import DeadLetter, State
from octollm.cli.event_line import SHORT_ID
from octollm.cli.terminal import printable, shortened

_STATES = {
    State.OPEN: ("open", "yellow"),
    State.MOVED_ON: ("went on since", "green"),
    State.ENDED: ("ended", "dim"),
    State.GONE: ("gone", "red"),
}


def table(letters: Sequence[DeadLetter]) -> Table:
    """One row each, newest first."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("#", "given up", "by", "task", "fact", "tries", "state"):
        rows.add_column(heading, no_wrap=True)
    rows.add_column("reason", overflow="ellipsis", no_wrap=True)
    for letter in letters:
        rows.add_row(
            str(letter.number),
            f"{letter.given_up_at:%Y-%m-%d %H:%M:%S}",
            letter.service,
            Text((letter.task_id or "")[:SHORT_ID], style="cyan"),
            Text(shortened(letter.fact, 40)),
            str(letter.deliveries),
            Text(state(letter), style=_STATES[letter.state][1]),
            Text(shortened(letter.reason, 200)),
        )
    return rows


def state(letter: DeadLetter) -> str:
    """What has happened since, in words."""
    word = _STATES[letter.state][0]
    return f"{word}: {letter.last}" if letter.state is State.ENDED else word


def full(letter: DeadLetter) -> Text:
    """Everything there is to say about one."""
    rows = {
        "given up": f"{letter.given_up_at:%Y-%m-%d %H:%M:%S} UTC by {letter.service} (consumer {letter.consumer})",
        "message": f"{letter.subject or 'unknown'}, sequence {letter.seq} of {letter.stream}",
        "task": letter.task_id or "unknown",
        "reason": letter.reason,
        "deliveries": f"{letter.deliveries}, outages and restarts included",
        "state": state(letter),
        "redrive": advice(letter),
    }
    text = Text()
    for name, value in rows.items():
        text.append(f"{name:<12}", style="bold")
        text.append(f"{printable(value)}\n")
    if letter.event is not None:
        text.append("payload\n", style="bold")
        text.append(printable(json.dumps(letter.payload, ensure_ascii=False, indent=2)))
    return text


def advice(letter: DeadLetter) -> str:
    """What a redrive would do, or what to do instead."""
    if letter.state is State.ENDED:
        return "nothing: the task has ended; submit it again (a new task with retry_of)"
    if letter.state is State.GONE:
        return _gone(letter)
    if letter.task_id is None:
        return "nothing: nobody knows its task"
    if letter.service == "planner":
        return "sends task.resume: a task that still waits for its plan has the planner asked for it again"
    return "sends task.resume: the orchestrator reads the task again and does what is left to do"


def _gone(letter: DeadLetter) -> str:
    """A command that was given up is no longer in COMMANDS."""
    match letter.fact:
        case "task.submit":
            return "nothing: the broker no longer has the submission; submit it again"
        case "task.cancel" | "task.resume":
            return f"nothing: a command is not kept; send it again (octo {letter.fact[5:]} {letter.task_id or 'TASK'})"
        case _:
            return "nothing: a command is not kept; send it again"
