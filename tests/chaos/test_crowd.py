"""Two of every service at once: they share the work, and no step is lost or done twice."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from octollm.stack import SERVICES
from octollm.stack.options import ensure_streams
from tests.chaos.failpoints.rig import Rig, rig, until
from tests.chaos.failpoints.verdict import judge
from tests.chaos.failpoints.workload import EFFECT, IDEMPOTENT, PARALLEL, PLANNED, PURE, RETRIED, Task

KINDS = (PURE, IDEMPOTENT, EFFECT, PARALLEL, PARALLEL, PARALLEL, PLANNED, RETRIED)
ROUNDS = 6


WORK = {
    "reflex": "octollm_reflex_deliveries_total",
    "planner": "octollm_planner_plans_total",
    "orchestrator": "octollm_orchestrator_deliveries_total",
    "executor": "octollm_executor_deliveries_total",
}
"""By which series each twin shows that it had its share; the projections' second one waits for the first to end."""


def started(argv: list[bytes], environment: dict[bytes, bytes], log: Path) -> subprocess.Popen[bytes]:
    """A process that writes to the end of a log."""
    with log.open("ab") as file:
        return subprocess.Popen(argv, env=environment, stdout=file, stderr=file)


@contextlib.asynccontextmanager
async def twin(running: Rig, service: str) -> AsyncIterator[str]:
    """A second process of a service, started as its first one was, but for the port; it writes to the same log.

    Gives its base URL. Fails when it has ended by itself.
    """
    [first] = [process for process in running.stack.processes() if process.name == service]
    proc = Path(f"/proc/{first.pid}")
    argv = proc.joinpath("cmdline").read_bytes().split(b"\0")[:-1]
    environment = dict(
        entry.split(b"=", 1) for entry in proc.joinpath("environ").read_bytes().split(b"\0") if b"=" in entry
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment[f"OCTO_{service.upper()}__PORT".encode()] = str(port).encode()
    process = started(argv, environment, Path(first.log))
    try:
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, f"the second {service} has ended"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


async def total(url: str, series: str) -> float:
    """The sum of a series over its labels."""
    async with httpx.AsyncClient(trust_env=False) as http:
        page = (await http.get(f"{url}/metrics")).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == series)


@pytest.mark.timeout(240)
async def test_two_of_each_do_everything_once() -> None:
    tasks = [Task(kind) for _ in range(ROUNDS) for kind in KINDS]
    # The broker's real patience: impatient, it hands a step that runs for a second to the other executor as well.
    patient = rig(bootstrap=ensure_streams)
    async with patient as running, contextlib.AsyncExitStack() as twins, httpx.AsyncClient(trust_env=False) as http:
        urls = {service.name: await twins.enter_async_context(twin(running, service.name)) for service in SERVICES}

        async def ready() -> bool:
            try:
                answers = [await http.get(f"{url}/ready") for name, url in urls.items() if name in WORK]
            except httpx.TransportError:
                return False
            return all(answer.status_code == 200 for answer in answers)

        await until(ready, lambda: "the second ones are ready")
        await asyncio.gather(
            *(running.submit(task, "http" if number % 2 else "bus") for number, task in enumerate(tasks))
        )
        await running.ended(tasks)
        verdict = await judge(running, tasks)
        shares = {name: await total(urls[name], series) for name, series in WORK.items()}
    print(verdict, shares)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert {end for _, end in verdict.outcomes} == {"completed"}, verdict
    assert all(shares.values()), shares
