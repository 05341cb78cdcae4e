"""States in memory: bounded, and held by one handler at a time. Losing one costs a read of its log, nothing else."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from octollm.orchestrator.metrics import CACHED_TASKS
from octollm.orchestrator.state import Ended, New, State

ENDED_PER_OPEN = 16
"""Ended tasks remembered (by id alone) for each open one: their timers still fire, and need no read of the log then."""


@dataclass(slots=True)
class Entry:
    """A task as its handler holds it. `timer`: the deadline that the broker is known to hold, None for unknown."""

    state: State = field(default_factory=New)
    timer: datetime | None = None


class Cache:
    """The most recently used open tasks, and the ids of ended ones.

    An entry is taken out by the handler that holds the task and put back when it is done; a handler that fails does not
    put it back, so what may be wrong is read anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: OrderedDict[str, Entry] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, task_id: str) -> AsyncIterator[None]:
        """One handler per task, in the order in which they asked."""
        lock, holders = self._locks.get(task_id, (asyncio.Lock(), 0))
        self._locks[task_id] = (lock, holders + 1)
        try:
            async with lock:
                yield
        finally:
            _, holders = self._locks[task_id]
            if holders == 1:
                del self._locks[task_id]
            else:
                self._locks[task_id] = (lock, holders - 1)

    def take(self, task_id: str) -> Entry | None:
        """The entry, no longer in the cache; None for a task that is not in memory."""
        entry = self._open.pop(task_id, None)
        CACHED_TASKS.set(len(self._open))
        return entry

    def has_ended(self, task_id: str) -> bool:
        """The task is known to have ended."""
        return task_id in self._ended

    def put(self, task_id: str, entry: Entry) -> None:
        """Keeps an open task's entry and an ended task's id; the least recently used give way."""
        match entry.state:
            case New():
                return
            case Ended():
                self._ended[task_id] = None
                if len(self._ended) > self._size * ENDED_PER_OPEN:
                    self._ended.popitem(last=False)
            case _:
                self._open[task_id] = entry
                if len(self._open) > self._size:
                    self._open.popitem(last=False)
        CACHED_TASKS.set(len(self._open))
