"""Finds the open tasks in the log and has each looked at again: the broker may have lost its deadline.

TIMERS is not synced before it answers, and may be lost whole. Deliveries that were acknowledged do not come again, so
a task whose deadline is lost would wait for ever. Everything that is needed stands in the log.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import structlog
from nats.aio.client import Client

from octollm.events import bus, direct, failpoint
from octollm.events.log import STREAM, LogUnavailable
from octollm.orchestrator import metrics
from octollm.orchestrator.runner import Runner, Stuck
from octollm.orchestrator.timers import TimerNotSet

LONGEST_LIFE = timedelta(hours=1, minutes=10)
"""Of a task: the largest time budget, the largest grace, and what a broker's clock may be set back."""

_OWN = ("step.dispatched.*", "task.completed.*", "task.failed.*", "task.cancelled.*")
"""What only orchestrators write, and always in a task's life."""

_ENDS = ("task.completed.*", "task.failed.*", "task.cancelled.*")
_BATCH = 128
_ANSWER_S = 10.0
_CONCURRENCY = 8
"""Tasks looked at side by side: new work goes on meanwhile."""

_PAUSE_S = (0.5, 30.0)
"""Between two attempts: doubles from the first to the last."""

_log = structlog.get_logger()


class Recovery:
    """Looks around once at the start, and whenever the broker may have forgotten something.

    Any number of orchestrators may do so at once: what they decide of a task is the same, and the log takes it once.
    """

    def __init__(self, client: Client, runner: Runner) -> None:
        self._client = client
        self._runner = runner
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        self._wanted.set()
        pause = _PAUSE_S[0]
        with bus.watched(self._client, bus.Watcher(made=self._wanted.set, gone=self._wanted.set)):
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                if await self._look():
                    pause = _PAUSE_S[0]
                else:
                    self._wanted.set()
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _PAUSE_S[1])

    async def _look(self) -> bool:
        """Looks at every open task; false where the broker was away meanwhile."""
        began = asyncio.get_running_loop().time()
        try:
            tasks = iter(await self._open_tasks())
        except direct.DirectGetFailed as error:
            metrics.RECOVERIES.labels("interrupted").inc()
            _log.warning("open tasks not found; trying again", reason=str(error))
            return False
        outcomes = Counter(dict.fromkeys(("open", "ended", "again", "failed"), 0))

        async def work() -> None:
            for task_id in tasks:
                outcomes[await self._recover(task_id)] += 1

        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
        is_done = not outcomes["again"]
        metrics.RECOVERIES.labels("done" if is_done else "interrupted").inc()
        seconds = round(asyncio.get_running_loop().time() - began, 3)
        _log.info("open tasks looked at" if is_done else "some open tasks to be looked at again", **outcomes, s=seconds)
        return is_done

    async def _recover(self, task_id: str) -> str:
        try:
            outcome = "open" if await self._runner.recover(task_id) else "ended"
            failpoint.reach("orchestrator.recovered")
        except (LogUnavailable, TimerNotSet, Stuck):
            outcome = "again"
        except Exception as error:
            # One task must not keep the others from being looked at, nor be looked at for ever.
            outcome, kind, after = "failed", type(error).__name__, f"octo verify {task_id}, then send task.resume"
            _log.error("task not looked at", task_id=task_id, error=kind, reason=str(error), next=after)
        metrics.TASKS_RECOVERED.labels(outcome).inc()
        return outcome

    async def _open_tasks(self) -> list[str]:
        """Ids of the tasks that have begun and not ended, oldest first.

        What no orchestrator has seen is still delivered. What one has seen had begun less than a task's life before the
        orchestrators' own last event. All of these times are the broker's.
        """
        own = [await direct.newest(self._client, STREAM, _ANSWER_S, subject) for subject in _OWN]
        seen = max((message.stored_at for message in own if message), default=None)
        since = 1 if seen is None else seen - LONGEST_LIFE
        begun = {task_id: None async for task_id in self._tasks("task.received.*", since)}
        for subject in _ENDS:
            async for task_id in self._tasks(subject, since):
                begun.pop(task_id, None)
        return list(begun)

    async def _tasks(self, subject: str, first: int | datetime) -> AsyncIterator[str]:
        """Of which tasks there are such events."""
        more = 1
        while more:
            messages, more = await direct.batch(self._client, STREAM, subject, first, _BATCH, _ANSWER_S)
            for message in messages:
                yield message.subject.rsplit(".", 1)[1]
            if not messages:
                return
            first = messages[-1].seq + 1
