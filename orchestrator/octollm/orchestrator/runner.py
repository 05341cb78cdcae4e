"""Carries decisions out: folds what happened to a task, appends what follows, sets its deadline.

Level-triggered: whatever the occasion, the state is brought up to date as far as needed and `decide` is asked until it
has nothing more. The expectation of each append guards it: a state that is behind costs a read, never a wrong event.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from octollm.events import failpoint
from octollm.events.carrier import StepFailed
from octollm.events.envelope import Event, Position, Undecodable
from octollm.events.log import Conflict, Log
from octollm.orchestrator import metrics
from octollm.orchestrator.cache import Cache, Entry
from octollm.orchestrator.fold import evolve, fold
from octollm.orchestrator.grants import Sign, granted
from octollm.orchestrator.saga import (
    FOLDED,
    CancelAsked,
    Intent,
    ResumeAsked,
    TimerFired,
    Trigger,
    decide,
    in_time,
    next_deadline,
)
from octollm.orchestrator.state import Ended, New, Open
from octollm.orchestrator.timers import Timers

_log = structlog.get_logger()

_DEADLINE = (
    "the task ends at its deadline; run the version that wrote the event and send task.resume to go on before it"
)
_NO_DEADLINE = (
    "without a contract there is no deadline and the task stays pending; run the version that wrote the event"
)


class Stuck(Exception):
    """The broker refuses an append because the task moved on, and a read shows nothing new: try again later."""


class Runner:
    """The saga of every task. Each method returns when all that follows is on record, and raises when it is not yet.

    grace: what a silent arm gets. cache_size: open tasks kept in memory. sign: makes the capability of a dispatch.
    clock: only for what arms are told.
    """

    def __init__(
        self,
        log: Log,
        timers: Timers,
        *,
        grace: timedelta,
        cache_size: int,
        sign: Sign,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._timers = timers
        self._grace = grace
        self._sign = sign
        self._clock = clock
        self._cache = Cache(cache_size)

    async def event(self, event: Event) -> None:
        """An event was delivered, perhaps again, perhaps late."""
        async with self._cache.hold(event.task_id):
            if self._cache.has_ended(event.task_id):
                return
            entry = self._cache.take(event.task_id) or Entry()
            position = entry.state.position
            if event.version == position.version + 1 and event.prev_hash == position.hash:
                self._fold(entry, [event])
            elif event.version > position.version:
                await self._read_forward(event.task_id, entry)
                if entry.state.position.version < event.version:
                    # A replica that lags: what it does not show must not be acked.
                    raise Stuck(
                        f"task {event.task_id}: event {event.version} is delivered, and a read does not show it"
                    )
            await self._settle(event.task_id, entry, FOLDED)

    async def timer_fired(self, task_id: str, at: datetime) -> None:
        """The task's timer fired at `at`, the broker's time."""
        async with self._cache.hold(task_id):
            metrics.TIMERS_FIRED.inc()
            if self._cache.has_ended(task_id):
                metrics.TIMERS_STALE.inc()
                return
            # Anew, although it may be cached: another orchestrator may have moved the task on, and events of our own
            # were folded with a time that is too early, which is no ground to give an arm up.
            entry = await self._load(task_id)
            due = next_deadline(entry.state, grace=self._grace)
            if due is None or due > at:
                metrics.TIMERS_STALE.inc()
            await self._settle(task_id, entry, TimerFired(at))

    async def cancel(self, task_id: str, asked: CancelAsked) -> bool:
        """A person wants the task stopped. False where there is nothing to stop."""
        async with self._cache.hold(task_id):
            if self._cache.has_ended(task_id):
                return False
            entry = self._cache.take(task_id) or await self._load(task_id)
            await self._settle(task_id, entry, asked)
            match entry.state:
                case Open() | Ended(outcome="cancelled"):
                    return True
                case _:
                    return False

    async def resume(self, task_id: str, requested_by: str) -> bool:
        """A person wants the task to go on: read anew, and decided again. False where there is no open task."""
        async with self._cache.hold(task_id):
            entry = await self._load(task_id)
            was_open = isinstance(entry.state, Open)
            await self._settle(task_id, entry, ResumeAsked(requested_by, entry.state.position.version))
            return was_open

    async def recover(self, task_id: str) -> bool:
        """Reads the task anew, decides again, and sets the deadline that the broker may have lost. False: it has ended.

        For any moment, and beside other orchestrators that are at work on the task.
        """
        async with self._cache.hold(task_id):
            if self._cache.has_ended(task_id):
                return False
            entry = await self._load(task_id)
            await self._settle(task_id, entry, FOLDED)
            # Another orchestrator may have moved the task on, and set an earlier deadline just before ours replaced it.
            while isinstance(entry.state, Open) and await self._read_forward(task_id, entry):
                entry.timer = None
                await self._settle(task_id, entry, FOLDED)
            return isinstance(entry.state, Open)

    async def _load(self, task_id: str) -> Entry:
        self._cache.take(task_id)
        entry = Entry()
        await self._read_forward(task_id, entry)
        return entry

    async def _settle(self, task_id: str, entry: Entry, trigger: Trigger) -> None:
        """Decides until nothing is left to do, then sees to the deadline and keeps the state."""
        is_exact = isinstance(trigger, TimerFired)
        while True:
            metrics.DECISIONS.labels(type(trigger).__name__).inc()
            intents = decide(entry.state, trigger, grace=self._grace)
            if not intents:
                break
            failpoint.reach("orchestrator.decided")
            if not is_exact and isinstance(intents[0].payload, StepFailed):
                # The times of our own events are too early in memory: no ground to give an arm up.
                entry.state, is_exact = New(), True
                await self._read_forward(task_id, entry)
                continue
            await self._append(task_id, entry, intents[0], trigger)
        await self._watch(task_id, entry)
        self._cache.put(task_id, entry)

    async def _append(self, task_id: str, entry: Entry, intent: Intent, trigger: Trigger) -> None:
        assert isinstance(entry.state, Open)
        expected = entry.state.position
        intent = in_time(entry.state, intent, self._clock(), grace=self._grace)
        try:
            appended = await self._log.append(task_id, granted(task_id, intent, self._sign), expected)
            failpoint.reach("orchestrator.appended")
        except Conflict:
            # Even where the event found there has the id of ours, another orchestrator may have written it.
            metrics.CONFLICTS.inc()
            if not await self._read_forward(task_id, entry):
                raise Stuck(f"task {task_id}: {intent.kind} conflicts after sequence {expected.seq}") from None
            return
        # The ack has no time. This is the latest one known to be no later than the event's own.
        known = max(entry.state.at, trigger.at) if isinstance(trigger, TimerFired) else entry.state.at
        entry.state = evolve(entry.state, replace(appended, stored_at=known))
        metrics.INTENTS_APPENDED.labels(intent.kind).inc()
        if isinstance(entry.state, Ended):
            metrics.TASKS_ENDED.labels(entry.state.outcome).inc()
            _log.info("task ended", task_id=task_id, outcome=entry.state.outcome, seq=appended.seq)

    async def _watch(self, task_id: str, entry: Entry) -> None:
        """Sees that the broker holds a deadline that is not later than the task's next."""
        due = next_deadline(entry.state, grace=self._grace)
        if due is None or not isinstance(entry.state, Open):
            return
        # A deadline that lies behind has fired, perhaps for another orchestrator.
        held = entry.timer if entry.timer is not None and entry.timer > entry.state.at else None
        if held is None or due < held:
            # Who knows a task's first event alone may be behind: its deadline is the task's last one, and must not take
            # the place of an earlier one.
            is_first = entry.timer is None and entry.state.position.version == 1
            await self._timers.set(task_id, due, only_if_unset=is_first)
            failpoint.reach("orchestrator.timer_set")
            metrics.TIMERS_SET.inc()
            entry.timer = due

    async def _read_forward(self, task_id: str, entry: Entry) -> int:
        """Folds all that the log has beyond the entry's position; how many events that was."""
        metrics.READS_FORWARD.inc()
        position = entry.state.position
        events = await self._log.read(task_id, after=None if position == Position.START else position)
        failpoint.reach("orchestrator.read")
        self._fold(entry, events)
        return len(events)

    def _fold(self, entry: Entry, events: list[Event]) -> None:
        entry.state = fold(events, entry.state)
        for event in events:
            metrics.EVENTS_FOLDED.labels(event.kind).inc()
            try:
                _ = event.payload
            except Undecodable as error:
                metrics.UNREADABLE.labels(event.kind).inc()
                _log.error(
                    "unreadable event passed over",
                    task_id=event.task_id,
                    subject=event.subject,
                    seq=event.seq,
                    reason=str(error),
                    next=_NO_DEADLINE if isinstance(entry.state, New) else _DEADLINE,
                )
