"""``stack.json``: how another process finds the stack that runs on a data directory, looks at it, and stops it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec

from octollm.stack import leftovers, procfs
from octollm.stack.errors import NotReady, NotRunning, StackError
from octollm.stack.program import Kind, State

FILE = "stack.json"
HURRY_SECONDS = 10.0


class ProcessState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One program of the stack; ``pid`` with ``started_ticks`` since boot names one process; no secrets."""

    name: str
    kind: Kind
    state: State
    pid: int | None
    started_ticks: int | None
    port: int
    address: str
    restarts: int
    log: str

    @property
    def alive(self) -> bool:
        """Whether the process that is listed here runs; only on the boot that the state is of."""
        return self.pid is not None and procfs.started(self.pid) == self.started_ticks


class StackState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stack as it described itself last. The URLs are those of local clients, passwords included.

    ``nats_nkey_file``: where the operator's key for NATS is kept; empty for a NATS that asks for none.
    """

    version: str
    stack_id: str
    state: State
    pid: int
    started_ticks: int
    boot_id: str
    started_at: str
    nats_url: str
    postgres_url: str
    redis_url: str
    nats_nkey_file: str
    processes: list[ProcessState]

    def __repr__(self) -> str:
        """Without the URLs, so that a log can't get hold of a password."""
        return f"StackState(pid={self.pid}, state={self.state!r}, processes={self.processes!r})"

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.boot_id == procfs.boot_id() and procfs.started(self.pid) == self.started_ticks

    def url(self, service: str) -> str:
        """The base URL of a service; raises NotRunning when the stack has no such service."""
        for process in self.processes:
            if process.name == service:
                return process.address
        raise NotRunning(f"this stack has no service {service!r}; it has {', '.join(p.name for p in self.processes)}")

    def listed(self) -> set[int]:
        """Programs of this stack that still run; without their supervisor they were told to end."""
        if self.boot_id != procfs.boot_id():
            return set()
        return {process.pid for process in self.processes if process.pid and process.alive}

    def leftovers(self) -> set[int]:
        """Whatever of this stack still runs, strays that a service spawned among it."""
        return self.listed() | procfs.marked(self.stack_id)


def write(data_dir: Path, state: StackState) -> None:
    """Replace the file as a whole; mode 0600."""
    draft = data_dir / f"{FILE}.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=2))
    draft.replace(data_dir / FILE)


def remove(data_dir: Path) -> None:
    """The stack has ended."""
    (data_dir / FILE).unlink(missing_ok=True)


def read(data_dir: Path) -> StackState | None:
    """What the last stack on ``data_dir`` wrote, dead or alive; None when it ended in good order or there was none.

    Raises StackError when the file isn't ours.
    """
    path = data_dir / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StackError(
            f"{path} can't be read ({error}); another version wrote it: end that stack, then remove it"
        ) from None


def running(data_dir: Path) -> StackState:
    """The stack that runs on ``data_dir``; raises NotRunning when none does."""
    state = read(data_dir)
    if state is None or not state.alive:
        raise NotRunning(f"no stack runs on {data_dir}; start one with `octo up`")
    return state


def signal_supervisor(state: StackState, number: signal.Signals) -> bool:
    """Signal the supervisor, if it still is the process that wrote the state; False when it is gone."""
    try:
        pidfd = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor names one process whatever its pid is reused for, so compare first and signal through it.
        if not state.alive:
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


async def down(data_dir: Path, drain_seconds: float = 30.0) -> None:
    """Stop the stack that another process runs on ``data_dir``; return when nothing of it is left.

    After ``drain_seconds`` it is told to hurry. A stack whose supervisor was killed is cleared away. Raises NotRunning
    when there is none, NotReady when it won't end.
    """
    state = read(data_dir)
    if state is None:
        raise NotRunning(f"no stack runs on {data_dir}")
    for seconds in (drain_seconds, HURRY_SECONDS):
        if not signal_supervisor(state, signal.SIGTERM) or await _ended(state, seconds):
            break
    else:
        raise NotReady(
            f"the stack's supervisor (pid {state.pid}) doesn't end; `kill -9 {state.pid}` ends its programs too"
        )
    await leftovers.clear(state.listed, HURRY_SECONDS)
    await leftovers.clear(state.leftovers, 0)
    if (last := read(data_dir)) and last.stack_id == state.stack_id:
        remove(data_dir)


async def _ended(state: StackState, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while state.alive:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
