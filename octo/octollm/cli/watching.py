"""Follows one task to its end: redrawn on a terminal, event by event into a pipe, JSON lines for machines."""

import asyncio

from octollm.cli import event_line
from octollm.cli.failure import Exit, Failure
from octollm.cli.log_reader import opened, task_events
from octollm.cli.task_text import Live, following, outcome
from octollm.cli.task_view import TaskView
from octollm.cli.terminal import Terminal
from octollm.events.config import NatsSettings
from octollm.events.log import Log

REDRAWS_PER_SECOND = 10


def watch(terminal: Terminal, nats: NatsSettings, task_id: str, patience_s: float | None) -> int:
    """The exit code that says how the task ended; WAITING when it hasn't after `patience_s` seconds. Raises Failure."""
    view = TaskView(task_id)
    try:
        return asyncio.run(follow_task(terminal, nats, view, patience_s))
    except KeyboardInterrupt:
        terminal.note(f"task {task_id} goes on without you: octo watch {task_id}, octo cancel {task_id}")
        return Exit.INTERRUPTED


async def follow_task(terminal: Terminal, nats: NatsSettings, view: TaskView, patience_s: float | None) -> int:
    """Tells the task's events until the last one, then how it ended; its exit code. Raises Failure."""
    async with opened(nats) as log:
        try:
            async with asyncio.timeout(patience_s):
                if terminal.interactive:
                    await _drawn(terminal, log, view)
                else:
                    async for event in task_events(log, view.task_id):
                        view.apply(event)
                        if terminal.as_json:
                            terminal.line(event_line.document(event))
                        else:
                            terminal.print(event_line.line(event))
        except TimeoutError:
            raise Failure(
                f"it hasn't ended after {patience_s:g} s",
                f"octo watch {view.task_id}",
                Exit.WAITING,
                task_id=view.task_id,
            ) from None
    if not terminal.as_json:
        if not terminal.interactive:
            terminal.print(following(view), end="")
        terminal.print(outcome(view), end="")
    return view.exit_code


async def _drawn(terminal: Terminal, log: Log, view: TaskView) -> None:
    from rich.live import Live as Display

    with Display(Live(view), console=terminal.out, refresh_per_second=REDRAWS_PER_SECOND) as display:
        async for event in task_events(log, view.task_id):
            view.apply(event)
        display.refresh()
