"""One log file for each server and service: opened for appending, shown by the tail, followed by name."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import IO

KEEP_BYTES = 16 * 1024 * 1024
"""A log longer than this is set aside as ``<name>.log.1`` when its program is started the next time."""

TAIL_BYTES = 64 * 1024
POLL_SECONDS = 0.1


def log_file(directory: Path, name: str) -> Path:
    """Where the program ``name`` writes."""
    return directory / f"{name}.log"


def log_files(data_dir: Path) -> dict[str, Path]:
    """Every log of a data directory by its program's name, those of programs that don't run any more among them."""
    return {path.stem: path for path in sorted((data_dir / "logs").glob("*.log"))}


def open_log(path: Path) -> IO[bytes]:
    """Open for appending, readable by this user only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size > KEEP_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab", buffering=0)


def tail(path: Path, lines: int = 20, since: int = 0) -> list[str]:
    """The last ``lines`` lines after byte ``since``; at most 64 KiB are read. Empty when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = min(size, max(since, size - TAIL_BYTES))
            file.seek(begin)
            text = file.read()
    except FileNotFoundError:
        return []
    return text.decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []


def quoted(path: Path, lines: int = 20, since: int = 0) -> str:
    """The tail, fit to end an error message."""
    shown = tail(path, lines, since)
    return "\n".join([f"the end of {path}:", *(f"  {line}" for line in shown)]) if shown else f"{path} is empty"


async def follow(paths: Iterable[Path], lines: int = 10) -> AsyncIterator[tuple[str, str]]:
    """Yield (program's name, line) for ever: the last ``lines`` of each log, then what is written.

    A log that doesn't exist yet is waited for; one that is replaced or cut is read from its beginning.
    """
    readers = [_Reader(path, lines) for path in paths]
    while True:
        fresh = [(reader.name, line) for reader in readers for line in reader.read()]
        for item in fresh:
            yield item
        if not fresh:
            await asyncio.sleep(POLL_SECONDS)


class _Reader:
    """Whole lines of one growing file."""

    def __init__(self, path: Path, lines: int) -> None:
        self.name = path.stem
        self._path = path
        self._rest = b""
        self._first = tail(path, lines)
        try:
            status = path.stat()
            self._inode, self._offset = status.st_ino, status.st_size
        except FileNotFoundError:
            self._inode, self._offset = 0, 0

    def read(self) -> list[str]:
        first, self._first = self._first, []
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                file.seek(self._offset)
                chunk = file.read(TAIL_BYTES)
        except FileNotFoundError:
            return first
        self._offset += len(chunk)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return first + [line.decode("utf-8", "replace") for line in whole]
