"""What a supervised program is: how it's started, how it says that it's ready, how it's stopped."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from signal import Signals

Probe = Callable[[], Awaitable[None]]
"""Returns when the program answers; raises, the reason as its text, when it doesn't: Unsuitable when it never will."""


class Kind(StrEnum):
    """Servers hold data and stop last; services are OctoLLM's own and stop first."""

    SERVER = "server"
    SERVICE = "service"


class State(StrEnum):
    """Where a program, or the whole stack, stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of the stack. ``address`` is fit to be shown: it holds no secret; ``environment`` may.

    ``death_signal`` is what the kernel sends it when the supervisor is gone. ``unprivileged`` runs it as user and group
    65534 of a user namespace when we are root, for programs that refuse to be root.
    """

    name: str
    kind: Kind
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    port: int
    address: str
    ready: Probe
    stop_signal: Signals = Signals.SIGTERM
    death_signal: Signals = Signals.SIGKILL
    drain_seconds: float = 10.0
    unprivileged: bool = False
