"""One stack to a data directory."""

import fcntl
import os
from pathlib import Path

from octollm.stack.errors import AlreadyRunning


class DirectoryLock:
    """flock(2) on ``stack.lock``: the kernel gives it back when its holder dies, so a lock is never stale."""

    def __init__(self, data_dir: Path) -> None:
        """Take the lock; raises AlreadyRunning, with the holder's pid, when another stack has it."""
        self._fd = os.open(data_dir / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise AlreadyRunning(
                f"another stack (pid {holder}) runs on {data_dir}; end it with `octo down`, or use another directory"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give it back; the file stays, since removing it would let two holders lock two files of one name."""
        os.close(self._fd)
