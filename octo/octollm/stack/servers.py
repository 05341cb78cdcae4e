"""The three servers as the stack sees them: how each is prepared, or reached where somebody else runs it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from octollm.stack import logs, nats, postgres, probe, valkey
from octollm.stack.errors import StackError
from octollm.stack.keys import secret
from octollm.stack.options import Server, StackOptions
from octollm.stack.ports import HOST, Ports
from octollm.stack.program import Program

RESOURCES: Mapping[Server, str] = {"nats": "nats", "postgres": "postgres", "valkey": "redis"}
"""What each server is to its clients: the name of its URL and, in capitals, of its section of the configuration."""

PROBES: Mapping[Server, Callable[[str], Awaitable[None]]] = {
    "nats": probe.nats_ready,
    "postgres": probe.postgres_ready,
    "valkey": probe.redis_ready,
}

REACH_SECONDS = 5.0
"""How long a server that somebody else runs has to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A server that can be started, and the URL, password included, that its clients will use.

    ``monitor_url``: where the broker answers for itself by HTTP; None for the others.
    """

    program: Program
    url: str
    monitor_url: str | None = None


def given_url(server: Server, options: StackOptions) -> str | None:
    """The URL of a server that isn't ours to start."""
    return {"nats": options.nats_url, "postgres": options.postgres_url, "valkey": options.redis_url}[server]


async def prepare(
    server: Server, data_dir: Path, *, port: int, ports: Ports, options: StackOptions, environment: dict[str, str]
) -> Prepared:
    """Make what the server needs under ``data_dir``. Raises Missing, NotReady and StackError as the launchers do."""
    directory, keys = data_dir / server, data_dir / "keys"
    if server == "nats":
        monitor = ports.free()
        program = nats.program(
            directory,
            port=port,
            monitor=monitor,
            fsync=options.fsync,
            keys_dir=keys,
            with_accounts=options.accounts,
            environment=environment,
            binary=options.nats_server_bin,
        )
        return Prepared(program=program, url=program.address, monitor_url=f"http://{HOST}:{monitor}")
    password_file = keys / f"{server}.password"
    if server == "postgres":
        program = await postgres.program(
            directory,
            port=port,
            fsync=options.fsync,
            password_file=password_file,
            log=logs.log_file(data_dir / "logs", server),
            environment=environment,
        )
        return Prepared(program=program, url=postgres.url(port, secret(password_file)))
    program = valkey.program(directory, port=port, password_file=password_file, environment=environment)
    return Prepared(program=program, url=valkey.url(port, secret(password_file)))


async def reach(server: Server, url: str) -> None:
    """Ask a server that somebody else runs; raises StackError, without the URL's password, when it doesn't answer."""
    try:
        async with asyncio.timeout(REACH_SECONDS):
            await PROBES[server](url)
    except Exception as error:  # three protocols, many kinds of failure, one meaning
        variable = f"OCTO_{RESOURCES[server].upper()}__URL"
        reason = str(error) or type(error).__name__
        raise StackError(f"{server} can't be reached by {variable} ({reason}); start it, or unset {variable}") from None
