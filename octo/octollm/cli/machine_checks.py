"""Checks of this machine: what a local stack needs before it can start."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from octollm.cli.finding import Finding, note, ok, wrong
from octollm.stack import SERVICES, Missing, StackError, nats, postgres, procfs, services, valkey
from octollm.stack.ports import DEFAULTS

LEAST_FREE_BYTES = 1024**3
ENOUGH_FREE_BYTES = 10 * 1024**3
"""The log alone may grow to 8 GiB (`max_bytes` of EVENTS)."""


def versions() -> Finding:
    """What this is and runs on."""
    version = importlib.metadata.version("octollm")
    found = f"octollm {version}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    if sys.platform != "linux":
        return wrong("versions", found, "the local stack needs Linux; use docker compose")
    return ok("versions", found)


def programs(nats_server_bin: str | None, bin_dir: Path | None) -> Iterator[Finding]:
    """Whether every program that a local stack starts is here."""
    wanted: dict[str, Callable[[], object]] = {
        "nats-server": partial(nats.find, nats_server_bin),
        "postgres": postgres.binaries,
        "valkey-server": valkey.find,
    }
    wanted |= {row.argv[0]: partial(services.find, row.argv, bin_dir) for row in SERVICES if row.argv[0] != "python"}
    missing = []
    for find in wanted.values():
        try:
            find()
        except Missing as error:
            what, _, fix = str(error).partition("; ")
            missing.append((what, fix))
    for what, fix in missing:
        yield wrong("programs", what, fix)
    if not missing:
        yield ok("programs", f"{', '.join(wanted)} can be started")


def disk(data_dir: Path) -> Finding:
    """Whether the data directory has room."""
    place = data_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free for {data_dir}"
    if free < LEAST_FREE_BYTES:
        return wrong("disk", found, "make room, or put the data elsewhere (--data-dir, OCTO_STACK__DATA_DIR)")
    if free < ENOUGH_FREE_BYTES:
        return note("disk", found, "the log may grow to 8 GiB")
    return ok("disk", found)


def ports() -> Iterator[Finding]:
    """Whether the usual ports are free for a stack that doesn't run yet."""
    wanted = dict(DEFAULTS)
    for row in SERVICES:
        try:
            wanted[row.name] = services.port(row, os.environ)
        except StackError as error:
            yield wrong("ports", str(error), "unset it, or give a number")
    taken = {name: (port, owner) for name, port in wanted.items() if (owner := procfs.listener(port))}
    for name, (port, owner) in taken.items():
        yield wrong("ports", f"{name}: port {port} is used by {owner}", "end it, or start with --ports free")
    if not taken:
        yield ok("ports", f"{', '.join(str(port) for port in wanted.values())} are free")
