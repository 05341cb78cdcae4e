"""Secrets that a stack makes at its first start and keeps: one file each, mode 0600."""

import os
from pathlib import Path

from octollm.stack.errors import StackError

BYTES = 32


def secret(path: Path) -> str:
    """The secret in ``path``: 32 random bytes as hexadecimal digits, made now if there is no such file.

    Raises StackError when others may read the file, as ssh does with its keys.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _kept(path)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        text = os.urandom(BYTES).hex()
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return text


def _kept(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise StackError(f"{path} may be read by others; if it never left this machine, make its mode 0600 (chmod 600)")
    text = path.read_text(encoding="ascii").strip()
    if len(text) != 2 * BYTES:
        raise StackError(
            f"{path} doesn't hold a secret of {BYTES} bytes; restore it, or remove it with what it protects"
        )
    return text
