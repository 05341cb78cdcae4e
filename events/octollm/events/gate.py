"""Whether a consumer takes deliveries: while a dependency is down it takes none but one now and then, to try it."""

import asyncio
import random
from collections.abc import Callable

import structlog

_log = structlog.get_logger()

_PAUSE_S = (0.5, 5.0)
"""Between two trials: doubles from the first to the last."""

_FORGOTTEN_S = 10.0
"""After so long without anything to try, nothing is known against the dependency any more."""


class Unavailable(Exception):
    """A dependency that a handler needs is down: its deliveries are handed back, and none of that is their failure.

    `dependency`: its name for people. The text goes into logs and `/ready`: no secrets, no payload.
    """

    def __init__(self, dependency: str, reason: str) -> None:
        super().__init__(f"{dependency}: {reason}")
        self.dependency = dependency


class Gate:
    """Open, or closed for an outage. A closed one lets a single delivery through when its pause is over.

    That one goes through: open. It doesn't: closed for longer. `clock` counts seconds; without one the event loop's.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._outage: Unavailable | None = None
        self._pause_s = 0.0
        self._until = 0.0
        self._trial: int | None = None

    def leave(self, batch: int) -> int:
        """How many deliveries the broker may be asked for: `batch`, one to try, or none."""
        self._forget()
        if self._outage is None:
            return batch
        return 0 if self._trial is not None or self._clock() < self._until else 1

    def admits(self, seq: int) -> bool:
        """Whether this delivery may be worked on; one that is tried must be told by `went_through` or `close`."""
        if self._outage is None:
            return True
        if self.leave(1) == 0:
            return False
        self._trial = seq
        return True

    @property
    def delay_s(self) -> float:
        """When a delivery that is handed back should come again."""
        return max(0.0, self._until - self._clock()) + 0.1 + random.uniform(0, 0.2)  # noqa: S311  # jitter, no secret

    def close(self, seq: int, outage: Unavailable) -> None:
        """The delivery met an outage."""
        if self._outage is None:
            _log.warning("a dependency is down; nothing is taken until it is back", reason=str(outage))
            self._pause_s = _PAUSE_S[0]
        elif self._trial == seq:
            self._pause_s = min(_PAUSE_S[1], self._pause_s * 2)
        else:
            return
        self._trial = None
        self._outage = outage
        self._until = self._clock() + self._pause_s

    def went_through(self, seq: int) -> None:
        """The delivery met no outage, whatever else became of it."""
        if self._outage is not None and self._trial == seq:
            _log.info("deliveries are taken again", dependency=self._outage.dependency)
            self._outage = self._trial = None

    async def check(self) -> None:
        """For `/ready`: raises Unavailable while an outage lasts."""
        self._forget()
        if self._outage is not None:
            raise self._outage

    def _forget(self) -> None:
        if self._outage is not None and self._trial is None and self._clock() > self._until + _FORGOTTEN_S:
            self._outage = None
