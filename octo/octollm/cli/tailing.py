"""Follows the log as it grows, or reads a part of it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Sequence

from octollm.cli import event_line
from octollm.cli.failure import Failure
from octollm.cli.log_reader import opened, task_events
from octollm.cli.terminal import Terminal
from octollm.events.config import NatsSettings
from octollm.events.envelope import Event
from octollm.events.log import Log

RECENT = 20
"""How far back in the log it begins where nothing else is said."""

_KIND = re.compile(r"(task|plan|step|judge)(\.([a-z_]+|\*))?")


def tail(
    terminal: Terminal,
    nats: NatsSettings,
    *,
    task_id: str | None,
    kinds: Sequence[str],
    since: int | None,
    until_end: bool,
    follow: bool,
) -> None:
    """Prints events until interrupted, until the task ends (`until_end`), or what is there (`follow` false)."""
    if until_end and task_id is None:
        raise Failure.usage("--until-end needs a task to end", "name it with --task, or use --no-follow")
    given = {_kind(kind) for kind in kinds}
    # The broker refuses filters that overlap.
    wanted = sorted(kind for kind in given if kind.endswith("*") or f"{kind.partition('.')[0]}.*" not in given)

    async def run() -> None:
        async with (
            opened(nats) as log,
            contextlib.aclosing(_events(log, task_id, wanted, since, until_end, follow)) as events,
        ):
            async for event in events:
                if terminal.as_json:
                    terminal.line(event_line.document(event))
                else:
                    terminal.print(event_line.line(event))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


def _kind(text: str) -> str:
    """`step` and `step.*` mean every fact about steps."""
    match = _KIND.fullmatch(text)
    if not match:
        raise Failure.usage(f"{text!r} is no kind of event", "give one like step.executed, or an entity like step")
    return f"{match[1]}.{match[3] or '*'}"


async def _events(
    log: Log, task_id: str | None, kinds: Sequence[str], since: int | None, until_end: bool, follow: bool
) -> AsyncGenerator[Event, None]:
    def matches(kind: str) -> bool:
        return not kinds or kind in kinds or f"{kind.partition('.')[0]}.*" in kinds

    if task_id is not None and (until_end or not follow):
        read = task_events(log, task_id) if until_end else _recorded(log, task_id)
        async with contextlib.aclosing(read) as events:
            async for event in events:
                if event.seq >= (since or 1) and matches(event.kind):
                    yield event
        return
    last = await log.last_seq()
    start = since or (1 if task_id else max(1, last - RECENT + 1))
    if not follow and start > last:
        return
    # To know where the log ends, reading to its end takes every event, whatever is printed of them.
    subjects = [f"{kind}.{task_id or '*'}" for kind in kinds or ["*.*"]] if follow else [">"]
    async with contextlib.aclosing(log.follow(start, subjects)) as events:
        async for event in events:
            if matches(event.kind):
                yield event
            if not follow and event.seq >= last:
                return


async def _recorded(log: Log, task_id: str) -> AsyncGenerator[Event, None]:
    for event in await log.read(task_id):
        yield event
