"""One operating-system process of the stack: spawned through the shim, watched through a pidfd, stopped for certain."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from octollm.stack import procfs

SHIM = Path(__file__).with_name("shim.py")


class Child:
    """A running program in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor.

    It dies with the *thread* that spawned it (PDEATHSIG is the thread's): spawn from the event loop's thread.
    ``on_exit`` is called once, from the event loop, with the exit status (negative: the signal that ended it), after
    whatever is left of its process group was killed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: IO[bytes],
        death_signal: signal.Signals,
        unprivileged: bool,
        on_exit: Callable[[int], None],
    ) -> None:
        """Spawn at once; raises OSError only when not even the interpreter can be started."""
        lead = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), str(int(death_signal)), str(int(unprivileged))]
        self._popen = subprocess.Popen(
            [*lead, *argv],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.started = procfs.started(self.pid)
        self._on_exit = on_exit
        self._exited = asyncio.Event()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def running(self) -> bool:
        """False as soon as the end was noticed."""
        return not self._exited.is_set()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # The dead leader still holds its pid, so the group's number can't be anybody else's yet.
        self._signal_group(signal.SIGKILL)
        status = self._popen.wait()
        self._exited.set()
        self._on_exit(status)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself; nothing happens when it is gone."""
        if self.running:
            self._popen.send_signal(number)

    async def wait(self) -> None:
        """Return when the process is gone."""
        await self._exited.wait()

    async def stop(self, number: signal.Signals, drain_seconds: float, hurry: asyncio.Event) -> None:
        """Ask with ``number``; kill the whole group after ``drain_seconds``, or at once when ``hurry`` is set."""
        if not self.running:
            return
        self.send(number)
        gone = asyncio.ensure_future(self.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({gone, hurried}, timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED)
            if self.running:
                self._signal_group(signal.SIGKILL)
            await gone
        finally:
            gone.cancel()
            hurried.cancel()


def ending(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was ended by {signal.Signals(-status).name}"
