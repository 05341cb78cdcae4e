"""How far the view has got, and waiting for it to get further."""

import asyncio
import time


class Progress:
    """`seq`: every event up to here can be read. `end`: the newest event of the log as last heard.

    `log`: which log the view is of (its creation time), None while that is not known. `foreign`: the log is another one
    now, so its sequences say nothing about the view's. `trouble`: why the view does not move; None while all is well.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.end = 0
        self.trouble: str | None = "the projector has not started"
        self.log: str | None = None
        self.foreign = False
        self._level_at = time.monotonic()
        self._moved = asyncio.Event()
        self._closed = False

    def advance(self, seq: int) -> None:
        """The view now stands at `seq`; a rebuild takes it back."""
        self.seq = seq
        self.heard(max(self.end, seq))
        self._wake()

    def heard(self, end: int) -> None:
        """The log now ends at `end`."""
        self.end = end
        if self.seq >= end:
            self._level_at = time.monotonic()

    @property
    def lag_events(self) -> int:
        """Sequences between the view and the log's end."""
        return max(0, self.end - self.seq)

    @property
    def lag_seconds(self) -> float:
        """Time since the view last stood at the log's end; 0 while it does."""
        return time.monotonic() - self._level_at if self.lag_events else 0.0

    async def reach(self, seq: int, timeout_s: float) -> bool:
        """Waits until the view stands at `seq` or further; False when the time is over or the service stops."""
        deadline = time.monotonic() + timeout_s
        while self.seq < seq:
            left = deadline - time.monotonic()
            if left <= 0 or self._closed:
                return False
            try:
                await asyncio.wait_for(self._moved.wait(), left)
            except TimeoutError:
                return self.seq >= seq
        return True

    def close(self) -> None:
        """Sends everybody away who waits."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
