"""An event loop without a clock, and processes that die in it: the same seed gives the same run, in no time."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from typing import Any

OWNER: ContextVar["Process | None"] = ContextVar("OWNER", default=None)
"""The simulated process that the running task belongs to."""


class Deadlock(Exception):
    """Every task waits, and no timer is set that could wake one."""


class Process:
    """What a kill ends: the tasks that were started in its name. `alive` turns false before the first of them ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        # In the order of their making: the order of a set would differ from run to run.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `main`, and whatever it starts, as this process."""
        token = OWNER.set(self)
        try:
            return asyncio.get_running_loop().create_task(main)
        finally:
            OWNER.reset(token)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def kill(self) -> None:
        """As kill -9 does: nothing that its tasks still do on their way out is seen by anybody."""
        self.alive = False
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            # Before Python 3.12 asyncio.wait_for may swallow a cancellation.
            asyncio.get_running_loop().call_later(1, self.kill)


class _Selector:
    """Stands where the loop waits for the operating system: waiting is moving the time on."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise Deadlock
        self._loop.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Callbacks in the order of asyncio, timers in the order of virtual time. `now`: seconds since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.set_task_factory(_task)

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[object]) -> None:
        """There are none: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody waits in a system call that would have to be woken."""


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    if owner := OWNER.get():
        owner.adopt(task)
    return task
