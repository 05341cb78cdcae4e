"""The stack: servers, streams, services, in that order; supervised while they run; stopped in the opposite order."""

import asyncio
import contextlib
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from octollm.stack import accounts, leftovers, logs, postgres, procfs, servers, services, state
from octollm.stack.errors import GaveUp, StackError
from octollm.stack.lock import DirectoryLock
from octollm.stack.options import STACK, STREAMS, Progress, Server, StackOptions
from octollm.stack.ports import DEFAULTS, HOST, Ports
from octollm.stack.program import Kind, Program, State
from octollm.stack.servers import RESOURCES
from octollm.stack.services import Service, Wiring
from octollm.stack.state import ProcessState, StackState
from octollm.stack.supervisor import Supervisor

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LEFTOVER_SECONDS = 15.0
"""How long a new stack lets what a killed one left end by itself; Postgres may be writing a checkpoint."""

HURRIED_SECONDS = 2.0
"""What servers get even when hurried: an unclean end costs more at the next start."""


class Stack:
    """A local stack: an async context manager, or ``start`` and ``stop``, or ``run`` in a program that only does that.

    Start it from the thread that runs the event loop and let that thread live: its programs die with it.
    """

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.stack_id = uuid.uuid4().hex
        self.state = State.STOPPED
        self.data_dir = options.data_dir
        self._caller = {**os.environ, **options.environment}
        self._port: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._ports = Ports(options.ports)
        self._lock: DirectoryLock | None = None
        self._hurry = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: GaveUp | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._began = 0.0
        self._started_at = ""

    # What it offers

    @property
    def nats_url(self) -> str:
        """``nats://…``; raises StackError when this stack has no NATS."""
        return self._wiring().url("nats")

    @property
    def postgres_url(self) -> str:
        """``postgresql://…`` with the password; raises StackError when this stack has no Postgres."""
        return self._wiring().url("postgres")

    @property
    def redis_url(self) -> str:
        """``redis://…`` with the password; raises StackError when this stack has no Redis."""
        return self._wiring().url("redis")

    def url(self, service: str) -> str:
        """The base URL of a service, without a slash at its end; raises StackError when there is no such service."""
        return self._wiring().url(service)

    def processes(self) -> list[ProcessState]:
        """Every program of the stack as it stands, servers first."""
        order = [*RESOURCES, *(row.name for row in self.options.services)]
        return [
            ProcessState(
                name=name,
                kind=supervisor.program.kind,
                state=supervisor.state,
                pid=supervisor.pid,
                started_ticks=supervisor.started,
                port=supervisor.program.port,
                address=supervisor.program.address,
                restarts=supervisor.restarts,
                log=str(supervisor.log),
            )
            for name, supervisor in sorted(self._supervisors.items(), key=lambda item: order.index(item[0]))
        ]

    def nkey_file(self, account: str = accounts.OPERATOR) -> Path | None:
        """The private key of an account of its NATS; for a NATS of somebody else's, the one that the caller names."""
        if "nats" in self._port:
            return accounts.key_file(self._wiring().keys_dir, account) if self.options.accounts else None
        given = self._caller.get("OCTO_NATS__NKEY_FILE")
        return Path(given) if given else None

    # What can be done with it

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return when everything is ready; once only. What was started is stopped again before this raises."""
        if self._began:
            raise StackError("this stack was started before; make a new one")
        if sys.platform != "linux":
            raise StackError(
                "the local stack needs Linux (its programs are tied to it by PDEATHSIG); use docker compose"
            )
        self._began = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._report(STACK, State.STARTING)
        self.state = State.STARTING
        try:
            commands = {row.name: services.find(row.argv, self.options.bin_dir) for row in self.options.services}
            self._take_directory()
            await self._outlive_the_last()
            self._choose_ports()
            await self._start_all(commands)
            if self._failure:
                raise self._failure
        except BaseException as error:
            await self.stop()
            raise self._failure or _first(error) from None
        self.state = State.READY
        self._write()
        self._report(STACK, State.READY)

    async def stop(self, *, now: bool = False) -> None:
        """Stop services, then servers, and verify that nothing is left; ``now`` cuts short a drain, also one under way.

        Safe to call again; a second call waits for the first.
        """
        if now:
            self._hurry.set()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stop the stack")
        await asyncio.shield(self._stopping)

    async def wait(self) -> None:
        """Return when the stack was stopped; raises GaveUp when it stopped because a program kept dying."""
        await self._ended.wait()
        if self._failure:
            raise self._failure

    async def run(self) -> None:
        """Start, run until SIGINT, SIGTERM or SIGHUP, stop; a second one means now. Raises as start and wait do."""
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        def interrupted() -> None:
            if asked.is_set():
                self._hurry.set()
            asked.set()

        for number in INTERRUPTIONS:
            loop.add_signal_handler(number, interrupted)
        interruption = asyncio.create_task(asked.wait())
        starting = asyncio.create_task(self.start())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({starting, interruption}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
            if not starting.cancelled():
                starting.result()
                await asyncio.wait({ended, interruption}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interruption.cancel()
            ended.cancel()
            starting.cancel()
            await self.stop()
            for number in INTERRUPTIONS:
                loop.remove_signal_handler(number)
        if self._failure:
            raise self._failure

    async def restart(self, name: str) -> None:
        """Stop a program gracefully and start it again on its port; return when it is ready."""
        await self._supervisor(name).restart(self.options.start_seconds)

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, fail_point: str | None = None) -> None:
        """Send a signal to a program's process, as a chaos test does; the program is restarted if it dies of it.

        ``fail_point`` is where the process that takes its place has to die in turn; the one after that has none.
        """
        await self._supervisor(name).kill(number, fail_point)

    async def ready(self, name: str, seconds: float = 30.0) -> None:
        """Return when a program is ready (again); raises NotReady after ``seconds``."""
        await self._supervisor(name).ready(seconds)

    # How

    def _supervisor(self, name: str) -> Supervisor:
        try:
            return self._supervisors[name]
        except KeyError:
            known = ", ".join(self._supervisors) or "nothing"
            raise StackError(f"this stack runs no {name!r}; it runs {known}") from None

    def _wiring(self) -> Wiring:
        return Wiring(data_dir=self.data_dir, keys_dir=self.data_dir / "keys", urls=self._urls)

    def _take_directory(self) -> None:
        if self.options.ephemeral:
            self.data_dir = Path(tempfile.mkdtemp(prefix="octollm-")).resolve()
        else:
            self.data_dir = self.options.data_dir.resolve()
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = DirectoryLock(self.data_dir)
        (self.data_dir / "keys").mkdir(exist_ok=True, mode=0o700)

    async def _outlive_the_last(self) -> None:
        """Wait until nothing is left of an earlier stack that was killed; what it ran may be ending just now."""
        await leftovers.clear(self._postgres_left, LEFTOVER_SECONDS)
        if earlier := state.read(self.data_dir):
            await leftovers.clear(earlier.listed, LEFTOVER_SECONDS)
            await leftovers.clear(earlier.leftovers, 0)
            state.remove(self.data_dir)

    def _choose_ports(self) -> None:
        """All of them before anything is started, so that a busy one is told at once."""
        for name in sorted(self.options.servers):
            if not servers.given_url(name, self.options):
                self._port[name] = self._ports.fixed(name, DEFAULTS[name])
        for row in self.options.services:
            self._port[row.name] = self._ports.fixed(row.name, services.port(row, self._caller))

    def _postgres_left(self) -> set[int]:
        directory = self.data_dir / "postgres"
        return postgres.left_running(directory) if directory.exists() else set()

    async def _start_all(self, commands: dict[str, tuple[str, ...]]) -> None:
        """Servers in parallel; each service as soon as the servers that it uses are up and the streams are made."""
        rows = self.options.services
        self._urls |= {row.name: f"http://{HOST}:{self._port[row.name]}" for row in rows}
        up = {resource.upper(): asyncio.Event() for resource in RESOURCES.values()}
        async with asyncio.TaskGroup() as group:
            for server, resource in RESOURCES.items():
                group.create_task(self._serve(server, resource, up[resource.upper()]))
            for row in rows:
                uses = [up[section] for section in row.sections if section in up]
                group.create_task(self._start_service(row, commands[row.name], uses))

    async def _serve(self, server: Server, resource: str, up: asyncio.Event) -> None:
        if url := servers.given_url(server, self.options):
            await servers.reach(server, url)
            self._urls[resource] = url
        elif server in self.options.servers:
            began = time.monotonic()
            prepared = await servers.prepare(
                server,
                self.data_dir,
                port=self._port[server],
                ports=self._ports,
                options=self.options,
                environment={**services.inherited(self._caller), procfs.MARK: self.stack_id},
            )
            await self._add(prepared.program, began)
            self._urls[resource] = prepared.url
            if prepared.monitor_url:
                self._urls[services.MONITOR] = prepared.monitor_url
        if server == "nats" and "nats" in self._urls:
            await self._make_streams()
        up.set()

    async def _make_streams(self) -> None:
        if self.options.bootstrap is None:
            return
        began = time.monotonic()
        self.options.progress(Progress(STREAMS, State.STARTING, 0.0))
        try:
            await self.options.bootstrap(self._urls["nats"], self.nkey_file(accounts.BOOTSTRAP))
        except Exception as error:  # whatever the contract's bootstrap refuses for, the start ends with its reason
            raise StackError(f"the streams can't be made: {error}") from error
        self.options.progress(Progress(STREAMS, State.READY, time.monotonic() - began))

    async def _start_service(self, row: Service, argv: tuple[str, ...], uses: list[asyncio.Event]) -> None:
        for up in uses:
            await up.wait()
        program = services.program(
            row,
            port=self._port[row.name],
            wiring=self._wiring(),
            nkey_file=self.nkey_file(row.name),
            caller=self._caller,
            argv=argv,
            stack_id=self.stack_id,
        )
        await self._add(program, time.monotonic())

    async def _add(self, program: Program, began: float) -> None:
        log = logs.log_file(self.data_dir / "logs", program.name)
        supervisor = Supervisor(program, log, began, self._changed, self._give_up)
        self._supervisors[program.name] = supervisor
        await supervisor.start(self.options.start_seconds)

    def _changed(self, supervisor: Supervisor, reason: str) -> None:
        with contextlib.suppress(OSError):  # a disk that is full mustn't end the supervision
            self._write()
        self.options.progress(Progress(supervisor.program.name, supervisor.state, supervisor.seconds, reason))

    def _report(self, name: str, to: State, detail: str = "") -> None:
        self.options.progress(Progress(name, to, time.monotonic() - self._began, detail))

    def _write(self) -> None:
        state.write(
            self.data_dir,
            StackState(
                version=importlib.metadata.version("octollm"),
                stack_id=self.stack_id,
                state=self.state,
                pid=os.getpid(),
                started_ticks=procfs.started(os.getpid()) or 0,
                boot_id=procfs.boot_id(),
                started_at=self._started_at,
                nats_url=self._urls.get("nats", ""),
                nats_nkey_file=str(self.nkey_file() or ""),
                postgres_url=self._urls.get("postgres", ""),
                redis_url=self._urls.get("redis", ""),
                processes=self.processes(),
            ),
        )

    def _give_up(self, failure: GaveUp) -> None:
        if self._failure is None:
            self._failure = failure
            self._stopping = self._stopping or asyncio.create_task(self._stop(), name="stop the stack")

    async def _stop(self) -> None:
        self.state = State.STOPPING
        self._report(STACK, State.STOPPING)
        try:
            await self._stop_all(Kind.SERVICE, self._hurry)
            hurried = asyncio.Event()
            hurrying = asyncio.create_task(self._hurry_servers(hurried))
            await self._stop_all(Kind.SERVER, hurried)
            hurrying.cancel()
            if self._lock:
                await leftovers.clear(lambda: procfs.marked(self.stack_id) | self._postgres_left(), 0)
                state.remove(self.data_dir)
        finally:
            self._ports.release()
            if self._lock:
                self._lock.release()
                self._lock = None
            if self.options.ephemeral and self.data_dir != self.options.data_dir:
                await asyncio.to_thread(shutil.rmtree, self.data_dir, ignore_errors=True)
            self.state = State.FAILED if self._failure else State.STOPPED
            self._report(STACK, self.state, str(self._failure or ""))
            self._ended.set()

    async def _hurry_servers(self, hurried: asyncio.Event) -> None:
        await self._hurry.wait()
        await asyncio.sleep(HURRIED_SECONDS)
        hurried.set()

    async def _stop_all(self, kind: Kind, hurry: asyncio.Event) -> None:
        chosen = [supervisor for supervisor in self._supervisors.values() if supervisor.program.kind is kind]
        await asyncio.gather(*(supervisor.stop(hurry) for supervisor in chosen))


def _first(error: BaseException) -> BaseException:
    """The failure that a task group met first: the rest were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
