"""Local files and directories as the `files` of a submission: the task's initial workspace."""

import base64
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from octollm.cli.failure import Failure

MAX_ENTRIES = 1000
MAX_INLINE_BYTES = 64 * 1024
"""Limits of the task contract: entries, and content of all files together."""


def read_files(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The entries for `PATH[:DEST]` arguments, with modes and modification times; a directory brings all that is in it.

    DEST is relative to the workspace and replaces the path's own last name; `.` puts a directory's content at the top.
    Raises Failure for what can't be read, is too much, or would leave the workspace.
    """
    entries: dict[str, dict[str, Any]] = {}
    size = 0
    for argument in arguments:
        source, destination = _split(argument)
        for path, name in _walk(source, destination):
            entry, length = _entry(path, name)
            size += length
            if name in entries and entry != entries[name]:
                raise Failure.usage(f"two files would be {name} in the workspace", "give one of them another DEST")
            entries[name] = entry
            if len(entries) > MAX_ENTRIES:
                raise Failure.usage(
                    f"{argument} brings the workspace to more than {MAX_ENTRIES} entries", "name what the task needs"
                )
            if size > MAX_INLINE_BYTES:
                raise Failure.usage(
                    f"with {path} the files hold more than {MAX_INLINE_BYTES} bytes", "name what the task needs"
                )
    return list(entries.values())


def _split(argument: str) -> tuple[Path, PurePosixPath]:
    """A path that exists is taken as it is, colons included."""
    source, colon, destination = argument.rpartition(":")
    if not colon or os.path.lexists(argument):
        source, destination = argument, ""
    path = Path(source)
    if not os.path.lexists(path):
        raise Failure.usage(f"there is no file {source}", "check --file PATH[:DEST]")
    target = PurePosixPath(destination or path.name or path.resolve().name)
    if target.is_absolute() or ".." in target.parts:
        raise Failure.usage(f"{destination} lies outside the workspace", "give DEST relative to the workspace")
    if str(target) == "." and not path.is_dir():
        target = PurePosixPath(path.name)
    return path, target


def _walk(source: Path, destination: PurePosixPath) -> Iterator[tuple[Path, str]]:
    """What is at `source`, parents before children, in the order of names. Links are not followed."""
    if str(destination) != ".":
        yield source, str(destination)
    if source.is_dir() and not source.is_symlink():
        try:
            children = sorted(source.iterdir())
        except OSError as error:
            raise _unreadable(source, error) from error
        for child in children:
            yield from _walk(child, destination / child.name)


def _entry(path: Path, name: str) -> tuple[dict[str, Any], int]:
    """One entry and the bytes of its content."""
    try:
        status = path.lstat()
        entry: dict[str, Any] = {"path": name}
        if stat.S_ISLNK(status.st_mode):
            return entry | {"type": "symlink", "target": _target(path, name)}, 0
        entry |= {"mode": f"{stat.S_IMODE(status.st_mode) & 0o777:04o}", "mtime": max(0, int(status.st_mtime))}
        if stat.S_ISDIR(status.st_mode):
            return entry | {"type": "dir"}, 0
        if not stat.S_ISREG(status.st_mode):
            raise Failure.usage(f"{path} is neither file, directory nor link", "leave it out")
        if status.st_size > MAX_INLINE_BYTES:
            raise Failure.usage(
                f"{path} has {status.st_size} bytes; all files together may have {MAX_INLINE_BYTES}", "leave it out"
            )
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return entry | {"type": "file", "base64": base64.b64encode(content).decode("ascii")}, len(content)
    return entry | {"type": "file", "text": text}, len(content)


def _target(link: Path, name: str) -> str:
    target = str(link.readlink())
    inside = os.path.normpath(PurePosixPath(name).parent / target)
    if target.startswith("/") or inside.split("/")[0] == "..":
        raise Failure.usage(f"the link {link} points out of the workspace ({target})", "leave it out, or copy the file")
    return target


def _unreadable(path: Path, error: OSError) -> Failure:
    return Failure.usage(f"{path} can't be read: {error.strerror}", "check the path and its mode")
