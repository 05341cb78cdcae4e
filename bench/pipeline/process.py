"""Programs that a bench runs beside a stack; they end with it, whatever happens."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from octollm.stack import logs, services
from octollm.stack.child import Child, ending
from octollm.stack.probe import http_ready

START_SECONDS = 60.0


class Failed(Exception):
    """A program did not start, or ended too early; the message quotes its log."""


@asynccontextmanager
async def running(
    argv: Sequence[str], environment: Mapping[str, str], log: Path, ready_url: str
) -> AsyncIterator[None]:
    """Runs a program from when `ready_url` answers 200 until the block ends; its environment is `environment` on top of
    what every program of a stack inherits. Raises Failed."""
    status: list[int] = []
    with logs.open_log(log) as file:
        child = Child(
            argv,
            environment={**services.inherited(os.environ), **environment},
            log=file,
            death_signal=signal.SIGKILL,
            unprivileged=False,
            on_exit=status.append,
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                if status:
                    raise Failed(f"{argv[0]} {ending(status[0])}; {logs.quoted(log)}")
                try:
                    await http_ready(ready_url)
                    break
                except Exception:  # not yet, in the ways of a socket and of HTTP
                    await asyncio.sleep(0.05)
        yield
    except TimeoutError:
        raise Failed(f"{argv[0]} does not answer on {ready_url}; {logs.quoted(log)}") from None
    finally:
        await child.stop(signal.SIGTERM, 5, asyncio.Event())
