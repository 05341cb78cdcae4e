"""What the simulation found in the orchestrator, corrected: the sweep runs on this until the orchestrator has it.

Each correction stands beside the test that shows the defect in the code as it is (`test_simulation.py`).
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from octollm.events.carrier import StepFailed
from octollm.events.envelope import Event
from octollm.orchestrator.cache import Entry
from octollm.orchestrator.runner import Runner, Stuck
from octollm.orchestrator.saga import FOLDED, TimerFired, Trigger, decide, next_deadline, rfc3339
from octollm.orchestrator.state import New, Open
from octollm.orchestrator.timers import TimerNotSet, Timers


class CorrectedTimers(Timers):
    """A task's first deadline, its latest one, never takes the place of an earlier one that somebody has set."""

    async def set_first(self, task_id: str, at: datetime) -> None:
        client: Any = self._client
        moment = rfc3339(at)
        headers = {
            "Nats-Schedule": f"@at {moment}",
            "Nats-Schedule-Target": f"timer.fired.{task_id}",
            "Nats-Expected-Last-Subject-Sequence": "0",
        }
        try:
            ack = await client.request(f"timer.set.{task_id}.deadline", b"", timeout=5.0, headers=headers)
        except Exception as error:
            raise TimerNotSet(f"task {task_id}: the broker did not confirm a deadline at {moment}") from error
        refused = json.loads(ack.data).get("error")
        if refused and refused["err_code"] != 10071:
            raise TimerNotSet(f"task {task_id}: the broker refused a deadline at {moment}: {refused['description']}")


class CorrectedRunner(Runner):
    """Gives an arm up by the log's own times only, never takes a stale read for the whole log, keeps early timers."""

    async def event(self, event: Event) -> None:
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
                    raise Stuck(
                        f"task {event.task_id}: event {event.version} is delivered, but a read does not show it"
                    )
            await self._settle(event.task_id, entry, FOLDED)

    open_tasks: Callable[[], list[str]]
    """The tasks that are open by the log, wherever a reader of it gets them from."""

    async def start(self) -> None:
        """Looks at every open task: a crash of broker and orchestrator together leaves no schedule and no memory."""
        await self.rearm()

    async def rearm(self) -> None:
        # Not what is in memory: that lacks what was evicted, and what a handler has in hand with a timer now gone.
        for task_id in self.open_tasks():
            await self.resume(task_id)

    async def _settle(self, task_id: str, entry: Entry, trigger: Trigger) -> None:
        is_exact = isinstance(trigger, TimerFired)
        while intents := decide(entry.state, trigger, grace=self._grace):
            if not is_exact and isinstance(intents[0].payload, StepFailed):
                # The times of own events are too early in memory: no ground to give an arm up.
                entry.state, is_exact = New(), True
                await self._read_forward(task_id, entry)
                continue
            await self._append(task_id, entry, intents[0], trigger)
        await self._watch(task_id, entry)
        self._cache.put(task_id, entry)

    async def _watch(self, task_id: str, entry: Entry) -> None:
        state = entry.state
        due = next_deadline(state, grace=self._grace)
        if isinstance(state, Open) and due is not None and entry.timer is None and state.position.version == 1:
            timers = self._timers
            assert isinstance(timers, CorrectedTimers)
            await timers.set_first(task_id, due)
            entry.timer = due
            return
        await super()._watch(task_id, entry)
