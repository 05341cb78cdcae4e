"""The systems that are measured. Each starts what it needs on a new data directory, runs its rows, and stops it."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.load import Measurement, Tasks, linear_plan, measure
from bench.pipeline import chain, cpu, hops
from bench.pipeline.process import Failed, running
from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.log import Log
from octollm.stack import SERVICES, Service, Stack, StackError, StackOptions
from octollm.stack.ports import Ports

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "target" / "bench" / "peers"
"""Where `make bench-pipeline` installs the peers: `venv` and `node_modules`."""

FROM_HERE = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
"""So that a service can be a module of the bench."""

ECHO = "pipeline, echo arm"
SANDBOX = "pipeline, sandbox"
PING_PONG = "bare chain, two processes"
AWAITED = "bare chain, one process"
DBOS = "DBOS"
RESTATE = "Restate"

STEPS = 4
WARM_UP = 10
CPU_IN_FLIGHT = 16


class Unavailable(Exception):
    """A system can't be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """So many tasks, so many in flight. `steps` of each task."""

    system: str
    fsync: bool
    in_flight: int
    count: int
    steps: int = STEPS


@dataclass(slots=True)
class Result:
    """What a system's run gave. `stored`: messages per task by stream. `hops`: milliseconds per hop, task by task.
    `cpu`: milliseconds of processor time per task by program, with 16 in flight."""

    rows: list[tuple[Row, Measurement]] = field(default_factory=list)
    stored: dict[str, float] = field(default_factory=dict)
    hops: list[dict[str, float]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)


def _arm(which: str, spans: Path) -> Service:
    """One of `bench.pipeline.arms` in the executor's place."""
    return Service(
        name="executor",
        port=8003,
        argv=("python", "-P", "-m", "bench.pipeline.arms", which),
        settings=lambda _: {"OCTO_EXECUTOR__SPANS": str(spans)},
    )


@asynccontextmanager
async def _connected(stack: Stack, account: str) -> AsyncIterator[bus.Client]:
    """A connection that is closed again; its inboxes are the account's."""
    settings = NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file(account))
    client = await bus.connect(settings, account)
    try:
        yield client
    finally:
        await client.close()


async def echo(rows: Sequence[Row]) -> Result:
    """The whole stack, with an arm that does nothing."""
    with tempfile.TemporaryDirectory(prefix="octollm-bench-") as folder:
        spans = Path(folder) / "spans"
        others = tuple(row for row in SERVICES if row.name != "executor")
        result, traces = await _pipeline(rows, (*others, _arm("echo", spans)))
        delivered = hops.read_spans(spans)
    result.hops = [hops.split(trace, delivered) for trace in traces]
    return result


async def sandbox(rows: Sequence[Row]) -> Result:
    """The whole stack as it is; each step runs `true` in the sandbox."""
    result, _ = await _pipeline(rows, SERVICES)
    return result


async def _pipeline(rows: Sequence[Row], services: tuple[Service, ...]) -> tuple[Result, list[hops.Trace]]:
    result, traces = Result(), list[hops.Trace]()
    options = StackOptions(
        ephemeral=True,
        ports="free",
        fsync=rows[0].fsync,
        services=services,
        environment=FROM_HERE,
    )
    async with Stack(options) as stack, _connected(stack, "operator") as client:
        tasks = Tasks(client)
        await tasks.listen()
        programs = {process.pid: process.name for process in stack.processes() if process.pid}

        async def warm_up() -> None:
            await tasks.run(linear_plan(STEPS))

        await measure(warm_up, WARM_UP, in_flight=1)
        for row in rows:
            ended: list[tuple[str, int, int]] = []

            async def one(row: Row = row, ended: list[tuple[str, int, int]] = ended) -> None:
                ended.append(await tasks.run(linear_plan(row.steps)))

            before, used = await tasks.stored(), cpu.milliseconds(programs)
            result.rows.append((row, await measure(one, row.count, row.in_flight)))
            if row.in_flight == 1:
                after = await tasks.stored()
                result.stored = {stream: (after[stream] - before[stream]) / row.count for stream in after}
                log = Log(client, "bench")
                traces = [hops.Trace(began, heard, await log.read(task_id)) for task_id, began, heard in ended]
            if row.in_flight == CPU_IN_FLIGHT:
                result.cpu = {name: (at - used[name]) / row.count for name, at in cpu.milliseconds(programs).items()}
    return result, traces


async def awaited_chain(rows: Sequence[Row], publishes: int) -> Result:
    """The broker alone, one process."""
    result = Result()
    options = StackOptions(ephemeral=True, ports="free", fsync=rows[0].fsync, services=(), servers=frozenset({"nats"}))
    async with Stack(options) as stack, _connected(stack, "orchestrator") as client:
        await chain.awaited(client, publishes, WARM_UP, 1)
        for row in rows:
            result.rows.append((row, await chain.awaited(client, publishes, row.count, row.in_flight)))
    return result


async def ping_pong(rows: Sequence[Row], publishes: int) -> Result:
    """The broker and two processes."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="octollm-bench-") as folder:
        options = StackOptions(
            ephemeral=True,
            ports="free",
            fsync=rows[0].fsync,
            services=(_arm("pong", Path(folder) / "spans"),),
            servers=frozenset({"nats"}),
            environment=FROM_HERE,
        )
        async with Stack(options) as stack, _connected(stack, "orchestrator") as client:
            game = chain.PingPong(client)
            listening = asyncio.create_task(game.listen())
            await game.measure(publishes, WARM_UP, 1)
            for row in rows:
                result.rows.append((row, await game.measure(publishes, row.count, row.in_flight)))
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    return result


async def dbos(rows: Sequence[Row]) -> Result:
    """DBOS on the stack's Postgres, four steps that do nothing."""
    python = PEERS / "venv" / "bin" / "python"
    if not python.exists():
        raise Unavailable("DBOS is not installed (make bench-pipeline installs it)")
    options = StackOptions(
        ephemeral=True, ports="free", fsync=rows[0].fsync, services=(), servers=frozenset({"postgres"})
    )
    async with Stack(options) as stack:
        database = stack.postgres_url.rpartition("/")[0] + "/dbos"
        process = await asyncio.create_subprocess_exec(
            str(python),
            str(ROOT / "bench" / "peers" / "dbos_load.py"),
            *(f"{row.in_flight}:{row.count}" for row in rows),
            env={**os.environ, "DBOS_SYSTEM_DATABASE_URL": database},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise Unavailable(f"DBOS ended with {process.returncode}: {errors.decode()[-500:]}")
    lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    measured = [Measurement(line["latencies_ms"], line["per_second"]) for line in lines]
    return Result(rows=list(zip(rows, measured, strict=True)))


async def restate(rows: Sequence[Row]) -> Result:
    """Restate's server and a Python service of four journaled steps that do nothing, called by its HTTP ingress."""
    servers = sorted((PEERS / "node_modules" / "@restatedev").glob("restate-server-linux-*/bin/restate-server"))
    python = PEERS / "venv" / "bin" / "python"
    if not servers or not python.exists():
        raise Unavailable("Restate is not installed (make bench-pipeline installs it where npm is)")
    result = Result()
    ports = Ports("free")
    ingress, admin, node, service = (f"127.0.0.1:{ports.free()}" for _ in range(4))
    environment = {
        "RESTATE_INGRESS__BIND_ADDRESS": ingress,
        "RESTATE_ADMIN__BIND_ADDRESS": admin,
        "RESTATE_BIND_ADDRESS": node,
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": "false" if rows[0].fsync else "true",
    }
    try:
        with tempfile.TemporaryDirectory(prefix="octollm-bench-") as folder:
            place = Path(folder)
            environment["RESTATE_BASE_DIR"] = str(place / "data")
            script = ROOT / "bench" / "peers" / "restate_service.py"
            argv = (str(python), str(script), service.rpartition(":")[2])
            async with (
                running((str(servers[0]),), environment, place / "server.log", f"http://{admin}/health"),
                running(argv, {}, place / "service.log", f"http://{service}/health"),
                httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client,
            ):
                deployment = await client.post(f"http://{admin}/deployments", json={"uri": f"http://{service}"})
                deployment.raise_for_status()

                async def one() -> None:
                    answer = await client.post(f"http://{ingress}/Pipeline/run")
                    if answer.text != "10":
                        raise Failed(f"restate answers {answer.status_code}: {answer.text[:300]}")

                await measure(one, WARM_UP, 1)
                for row in rows:
                    result.rows.append((row, await measure(one, row.count, row.in_flight)))
    except (Failed, StackError, httpx.HTTPError) as error:
        raise Unavailable(f"Restate: {error}") from error
    finally:
        ports.release()
    return result
