"""Makes sure that nothing of a stack is left: waits for what is ending, kills the rest, says what it couldn't kill."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

from octollm.stack import procfs
from octollm.stack.errors import NotReady

KILL_SECONDS = 5.0
POLL_SECONDS = 0.02


async def clear(left: Callable[[], set[int]], grace_seconds: float) -> None:
    """Return when ``left()`` is empty; what is left after ``grace_seconds`` is killed. Raises NotReady if one stays."""
    if await _gone(left, grace_seconds):
        return
    for pid in left():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if not await _gone(left, KILL_SECONDS):
        named = ", ".join(f"pid {pid} ({procfs.command(pid)})" for pid in sorted(left()))
        raise NotReady(
            f"{named} can't be killed, and holds what the stack needs; look at its state in /proc/<pid>/status"
        )


async def _gone(left: Callable[[], set[int]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while left():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
