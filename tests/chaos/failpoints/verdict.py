"""What holds after any crash, read from the log, the executor's own record and the view."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from octollm.events.carrier import (
    CommandAction,
    Step,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskFailed,
    TaskRejected,
)
from octollm.events.chain import Message, verify
from octollm.events.direct import Stored
from octollm.events.envelope import Event
from octollm.projections import tables
from octollm.projections.batch import project
from octollm.projections.rows import TaskRow
from tests.chaos.failpoints.rig import Rig, until
from tests.chaos.failpoints.workload import COUNTER, Task


@dataclass(frozen=True)
class Verdict:
    """`outcomes`: how many tasks of each kind ended how. `faults`: what does not hold; empty when all is well."""

    outcomes: Counter[tuple[str, str]]
    faults: list[str]

    def __str__(self) -> str:
        by_kind: dict[str, Counter[str]] = defaultdict(Counter)
        for (kind, end), count in self.outcomes.items():
            by_kind[kind][end] += count
        return "; ".join(
            f"{kind}: " + ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
            for kind, ends in by_kind.items()
        )


async def judge(rig: Rig, tasks: Sequence[Task], *, runs_at_most: int | None = 1) -> Verdict:
    """Looks at tasks that have ended. `runs_at_most`: starts of an attempt that may run again, None for any number."""
    messages = await rig.log()
    events: dict[str, list[Event]] = defaultdict(list)
    for message in messages:
        event = parsed(message)
        events[event.task_id].append(event)
    faults = list(_chain(messages))
    outcomes: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        own = events[task.id]
        end = _end(own)
        outcomes[task.kind.name, end] += 1
        faults += [f"{task.kind.name} {task.id}: {fault}" for fault in _task(rig, task, own, end)]
    faults += _starts(rig, tasks, events, runs_at_most)
    faults += await _view(rig, tasks, messages, events)
    return Verdict(outcomes, faults)


def parsed(message: Stored) -> Event:
    """The event; what guarded its append left out."""
    kept = {name: value for name, value in message.headers.items() if name == "content-type" or name.startswith("ce-")}
    return Event.parse(message.subject, kept, message.data, message.seq, message.stored_at)


def _chain(messages: Sequence[Stored]) -> Iterable[str]:
    report = verify(
        Message(
            seq=message.seq,
            subject=message.subject,
            headers=dict(message.headers),
            body=message.data,
            stored_at=message.stored_at.isoformat(),
        )
        for message in messages
    )
    for task in report.tasks:
        for finding in task.findings:
            yield f"task {task.task_id}: event {finding.seq} is {finding.code}: {finding.detail}"


def _end(events: Sequence[Event]) -> str:
    """The code of the end, else its fact."""
    match events[-1].payload if events else None:
        case TaskFailed() | TaskRejected() as failed:
            return failed.code.value
        case None:
            return "lost"
        case _:
            return events[-1].kind.removeprefix("task.")


def _task(rig: Rig, task: Task, events: Sequence[Event], end: str) -> Iterable[str]:
    ends = [event for event in events if event.terminal]
    if len(ends) != 1:
        yield f"{len(ends)} terminal events"
    if end not in task.kind.ends:
        why = getattr(events[-1].payload, "message", "") if events else ""
        yield f"ended {end} ({why}), expected {' or '.join(sorted(task.kind.ends))}"
    dispatched: Counter[tuple[str, int]] = Counter()
    settled: Counter[tuple[str, int]] = Counter()
    for event in events:
        match event.payload:
            case StepDispatched(step=step, attempt=attempt):
                dispatched[step.id, attempt] += 1
            case StepExecuted(step_id=name, attempt=attempt) | StepFailed(step_id=name, attempt=attempt):
                settled[name, attempt] += 1
    for which in dispatched.keys() | settled.keys():
        if (dispatched[which], settled[which]) != (1, 1):
            yield f"step {which} was dispatched {dispatched[which]} times and settled {settled[which]} times"
    took_place = rig.effects(task)
    if took_place > task.kind.appends or (end == "completed" and took_place != task.kind.appends):
        yield f"its side effect took place {took_place} times and it ended {end}"
    if end == "completed":
        for name, lines in _seen(events):
            if lines != task.kind.appends:
                yield f"step {name} saw {lines} lines of {task.kind.appends} in the workspace"


def _seen(events: Sequence[Event]) -> Iterable[tuple[str, int]]:
    """What the steps that read the counter found in the workspace, as recorded."""
    readers = {
        event.payload.step.id
        for event in events
        if isinstance(event.payload, StepDispatched) and _reads_counter(event.payload.step)
    }
    for event in events:
        if isinstance(event.payload, StepExecuted) and event.payload.step_id in readers:
            yield event.payload.step_id, len(event.payload.output.stdout.head.splitlines())


def _reads_counter(step: Step) -> bool:
    return isinstance(step.action, CommandAction) and step.action.pipeline == [["cat", COUNTER]]


def _starts(rig: Rig, tasks: Sequence[Task], events: dict[str, list[Event]], runs_at_most: int | None) -> Iterable[str]:
    """What the executor started, by its own log: side effects once, and nothing that was on record as executed."""
    effects: dict[str, str] = {}
    done: dict[str, datetime] = {}
    for task in tasks:
        for event in events[task.id]:
            match event.payload:
                case StepDispatched(step=step, attempt=number) as dispatch:
                    effects[f"{task.id}.{dispatch.plan_version}.{step.id}.{number}"] = step.effect.value
                case StepExecuted() as executed:
                    name = f"{task.id}.{executed.plan_version}.{executed.step_id}.{executed.attempt}"
                    done[name] = event.stored_at
    starts: Counter[str] = Counter()
    for line in rig.logged("executor"):
        if line.get("message") != "the step starts":
            continue
        attempt = line["attempt"]
        starts[attempt] += 1
        began = datetime.fromisoformat(line["timestamp"])
        if attempt in done and began > done[attempt]:
            yield f"{attempt} started at {began}, after it was on record as executed ({done[attempt]})"
    for attempt, effect in effects.items():
        most = 1 if effect == "side_effecting" else runs_at_most
        if most is not None and starts[attempt] > most:
            yield f"{attempt} ({effect}) started {starts[attempt]} times, at most {most} expected"


async def _view(
    rig: Rig, tasks: Sequence[Task], messages: Sequence[Stored], events: dict[str, list[Event]]
) -> list[str]:
    """The tables are the fold of the log, and the REST view shows them."""
    connection: asyncpg.Connection | None = None

    async def level() -> bool:
        nonlocal connection
        try:
            if connection is None:
                path = {"search_path": "projections"}
                connection = await asyncpg.connect(rig.stack.postgres_url, server_settings=path)
            found = await tables.checkpoint(connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            connection = None
            return False
        return found is not None and found[1] >= messages[-1].seq

    await until(level, lambda: f"the view has event {messages[-1].seq}")
    assert connection
    ids = {task.id for task in tasks}
    rows = await tables.task_rows(connection, ids)
    await connection.close()
    folded = project({}, messages).tasks
    faults = [
        f"task {one}: the view's row is not the fold's: {_difference(rows.get(one), folded[one])}"
        for one in ids & folded.keys()
        if rows.get(one) != folded[one]
    ]
    for task in tasks:
        shown = await until(lambda task=task: rig.view(task), lambda task=task: f"the view shows {task.id}")  # type: ignore[misc]
        ended = events[task.id][-1].kind.removeprefix("task.") if events[task.id] else "lost"
        if shown["status"] != ended:
            faults.append(f"task {task.id}: the view says {shown['status']}, the log {ended}")
    return faults


def _difference(row: TaskRow | None, fold: TaskRow) -> Any:
    if row is None:
        return "there is none"
    names = [name for name in TaskRow.__dataclass_fields__ if getattr(row, name) != getattr(fold, name)]
    return {name: (getattr(row, name), getattr(fold, name)) for name in names}
