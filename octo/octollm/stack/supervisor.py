"""Keeps one program alive: restarts it with jittered exponential backoff, gives it up after five deaths a minute."""

import asyncio
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from octollm.stack import logs
from octollm.stack.child import Child, ending
from octollm.stack.errors import GaveUp, NotReady, Unsuitable
from octollm.stack.program import Program, State

DEATHS = 5
WINDOW_SECONDS = 60.0
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
PROBE_SECONDS = 2.0
POLL_SECONDS = (0.01, 0.1)
FAIL_POINT = "OCTO_FAIL_POINT"
"""Passed on by nothing but a kill that names a fail point."""

Changed = Callable[["Supervisor", str], None]
"""Called after every change of state, with a reason that may be empty."""


def backoff(deaths: int, jitter: float) -> float:
    """Seconds to wait after the n-th death in the window; ``jitter`` in [0, 1) makes it a half to one and a half."""
    delay: float = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (deaths - 1))
    return delay * (0.5 + jitter)


class Supervisor:
    """One program of a stack, over all of its processes.

    ``began`` (monotonic clock) is when the work on its first start began. ``gave_up`` is called once, with the reason,
    when the program died five times within a minute; nothing is restarted then.
    """

    def __init__(
        self, program: Program, log: Path, began: float, changed: Changed, gave_up: Callable[[GaveUp], None]
    ) -> None:
        self.program = program
        self.log = log
        self.state = State.STOPPED
        self.restarts = 0
        self.began = began
        self._changed = changed
        self._gave_up = gave_up
        self._child: Child | None = None
        self._log_offset = 0
        self._status = 0
        self._deaths: deque[float] = deque()
        self._ready = asyncio.Event()
        self._restarting = asyncio.Lock()
        self._closed = False
        self._asked = False
        self._once: Mapping[str, str] = {}
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process, if one runs."""
        return self._child.pid if self._child and self._child.running else None

    @property
    def started(self) -> int | None:
        """When the process started, in clock ticks since boot."""
        return self._child.started if self._child and self._child.running else None

    @property
    def seconds(self) -> float:
        """Since the last start was begun."""
        return time.monotonic() - self.began

    def _enter(self, state: State, reason: str = "") -> None:
        self.state = state
        if state is State.READY:
            self._ready.set()
        else:
            self._ready.clear()
        self._changed(self, reason)

    def _spawn(self) -> Child:
        # Who was told to die at a fail point does so on request; who takes its place is told nothing.
        environment, self._asked, self._once = {**self.program.environment, **self._once}, bool(self._once), {}
        with logs.open_log(self.log) as log:
            self._log_offset = log.seek(0, 2)
            self._child = Child(
                self.program.argv,
                environment=environment,
                log=log,
                death_signal=self.program.death_signal,
                unprivileged=self.program.unprivileged,
                on_exit=self._exited,
            )
        return self._child

    def _exited(self, status: int) -> None:
        self._status = status
        if self._keeper and self.state in (State.READY, State.STARTING):
            self._enter(State.RESTARTING, ending(status))

    async def start(self, deadline_seconds: float) -> None:
        """Start and return when the program answers.

        Raises NotReady, with the log's tail, when it ends or doesn't answer within ``deadline_seconds``. It isn't tried
        again: what fails at the first start is as a rule a setting, and waiting would only hide it.
        """
        if self._closed:
            raise NotReady(f"{self.program.name} isn't started: the stack is being stopped")
        child = self._spawn()
        self._enter(State.STARTING)
        reason = await self._answer(child, deadline_seconds)
        if reason is not None:
            self._enter(State.FAILED, reason)
            await child.stop(signal.SIGKILL, 0, asyncio.Event())
            raise NotReady(f"{self.program.name} {reason}; {logs.quoted(self.log, since=self._log_offset)}")
        self._enter(State.READY)
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def _answer(self, child: Child, deadline_seconds: float = float("inf")) -> str | None:
        """Poll until the program answers: None; or why it doesn't."""
        interval, last = POLL_SECONDS
        deadline = time.monotonic() + deadline_seconds
        refusal = "no answer"
        while child.running:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self.program.ready()
                if child.running:  # else somebody else answers on its port
                    return None
                break
            except TimeoutError:
                refusal = f"no answer within {PROBE_SECONDS:g} s"
            except Unsuitable as error:
                return f"won't do: {error}"
            except Exception as error:  # a probe fails in the ways of three protocols, and any failure means: not yet
                refusal = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                return f"isn't ready after {deadline_seconds:g} s ({refusal})"
            await asyncio.sleep(interval)
            interval = min(last, interval * 1.3)
        return ending(self._status)

    async def _keep(self) -> None:
        """Restart for ever, or until the deaths are too many."""
        while self._child is not None:
            await self._child.wait()
            now = time.monotonic()
            if self._asked:
                self._asked = False
            else:
                self._deaths.append(now)
            while self._deaths and now - self._deaths[0] > WINDOW_SECONDS:
                self._deaths.popleft()
            if len(self._deaths) >= DEATHS:
                self._enter(State.FAILED, ending(self._status))
                tail = logs.quoted(self.log, since=self._log_offset)
                died = f"{self.program.name} died {DEATHS} times within {WINDOW_SECONDS:g} s"
                self._gave_up(
                    GaveUp(f"{died}; the last process {ending(self._status)}; everything was stopped; {tail}")
                )
                return
            await asyncio.sleep(backoff(max(1, len(self._deaths)), random.random()))  # noqa: S311 - jitter
            self.restarts += 1
            self.began = time.monotonic()
            try:
                child = self._spawn()
            except OSError as error:
                self._enter(State.FAILED, str(error))
                self._gave_up(GaveUp(f"{self.program.name} can't be started again ({error}); everything was stopped"))
                return
            self._enter(State.STARTING)
            if await self._answer(child) is None:
                self._enter(State.READY)

    async def ready(self, deadline_seconds: float) -> None:
        """Return when the program is ready; raises NotReady, with the log's tail, after ``deadline_seconds``."""
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._ready.wait()
        except TimeoutError:
            tail = logs.quoted(self.log, since=self._log_offset)
            raise NotReady(
                f"{self.program.name} is {self.state}, not ready, after {deadline_seconds:g} s; {tail}"
            ) from None

    async def kill(self, number: signal.Signals, fail_point: str | None = None) -> None:
        """Send a signal to the running process; after SIGKILL, return when it is gone and its end was noticed.

        ``fail_point`` is where the process that takes its place, and no later one, has to die (events' failpoint).
        A death that was asked for, by SIGKILL or so, isn't counted, or a chaos test would soon end the stack.
        """
        child = self._child
        if child is None or not child.running:
            raise NotReady(f"{self.program.name} is {self.state}: there is no process to send {number.name} to")
        self._asked = number == signal.SIGKILL
        self._once = {} if fail_point is None else {FAIL_POINT: fail_point}
        child.send(number)
        if self._asked:
            await child.wait()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop for good; ``hurry`` cuts the drain short, even while it is under way."""
        self._closed = True
        await self._halt(hurry)

    async def _halt(self, hurry: asyncio.Event) -> None:
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None
        failed = self.state is State.FAILED
        if self._child and self._child.running:
            self._enter(State.STOPPING)
            await self._child.stop(self.program.stop_signal, self.program.drain_seconds, hurry)
        if not failed and self.state is not State.STOPPED:
            self._enter(State.STOPPED)

    async def restart(self, deadline_seconds: float) -> None:
        """Stop gracefully and start again; it doesn't count as a death."""
        async with self._restarting:
            await self._halt(asyncio.Event())
            self.restarts += 1
            self.began = time.monotonic()
            await self.start(deadline_seconds)
