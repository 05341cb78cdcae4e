"""What a stack can be told."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from octollm.stack.ports import Policy
from octollm.stack.program import State
from octollm.stack.services import SERVICES, Service

Server = Literal["nats", "postgres", "valkey"]
Bootstrap = Callable[[str, Path | None], Awaitable[None]]

STREAMS = "streams"
STACK = "stack"


@dataclass(frozen=True, slots=True)
class Progress:
    """A program (or ``streams``, or the ``stack`` itself) came to a state, ``seconds`` after its start was begun."""

    name: str
    state: State
    seconds: float
    detail: str = ""


def _quiet(_: Progress) -> None:
    """Nobody looks."""


async def ensure_streams(nats_url: str, nkey_file: Path | None) -> None:
    """Create what the services meet on, or bring it up to date; OCTO_NATS__REPLICAS says on how many servers."""
    from octollm.events.config import NatsSettings, load
    from octollm.events.streams import ensure

    replicas = load("nats", NatsSettings).replicas
    await ensure(NatsSettings(url=nats_url, nkey_file=nkey_file, replicas=replicas))


def _bin_dir() -> Path | None:
    return Path(os.environ["OCTO_BIN_DIR"]) if os.environ.get("OCTO_BIN_DIR") else None


def _nats_server_bin() -> str | None:
    return os.environ.get("OCTO_NATS_SERVER_BIN") or None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Options of a stack; the defaults are those of ``octo up``.

    ``data_dir`` is made if need be and kept; with ``ephemeral`` a temporary directory is used instead and removed at
    the end. ``fsync=False`` acknowledges before data are on disk: for benches only. A server whose URL is given, or
    that isn't among ``servers``, isn't started. Its own NATS lets everybody do what events/accounts.json says, and
    everything with ``accounts=False``: for tests only. ``environment`` is laid over the caller's. ``start_seconds``
    bounds the start of each program.
    """

    data_dir: Path = Path(".octo")
    ephemeral: bool = False
    ports: Policy = "default"
    fsync: bool = True
    servers: frozenset[Server] = frozenset({"nats", "postgres", "valkey"})
    services: tuple[Service, ...] = SERVICES
    accounts: bool = True
    nats_url: str | None = field(default=None, repr=False)
    postgres_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    bootstrap: Bootstrap | None = ensure_streams
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    nats_server_bin: str | None = field(default_factory=_nats_server_bin)
    bin_dir: Path | None = field(default_factory=_bin_dir)
    start_seconds: float = 30.0
    progress: Callable[[Progress], None] = _quiet
