"""The service as it is run: one process, its probes, its metrics, its end."""

import asyncio
import os
import signal
import socket
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from octollm.events.config import PostgresSettings
from octollm.events.log import Log
from tests.projections import story
from tests.projections.conftest import Servers, eventually
from tests.projections.gate import Gate
from tests.projections.story import Told
from tests.projections.test_projector import digests

TASKS = "/api/v1/tasks"


def environment(servers: Servers, postgres_url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
    return kept | {"OCTO_NATS__URL": servers.nats.url, "OCTO_POSTGRES__URL": postgres_url, **more}


async def start(env: dict[str, str], *words: str) -> Process:
    command = (sys.executable, "-P", "-m", "octollm.projections", *words)
    return await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=PIPE)


@asynccontextmanager
async def service(env: dict[str, str]) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """The service on a free port, killed at the end if it still runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await start(env, "--port", str(port))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def alive() -> bool:
                try:
                    return (await http.get("/health")).status_code == 200
                except httpx.TransportError:
                    assert process.returncode is None, await process.communicate()
                    return False

            await eventually(alive)
            yield process, http
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/ready")).status_code == 200


async def series(http: httpx.AsyncClient) -> dict[str, float]:
    """Every series of ours with its labels."""
    text = (await http.get("/metrics")).text
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("octo_projections_") and not sample.name.endswith("_created")
    }


async def test_it_serves_counts_and_ends(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    async with service(environment(servers, postgres.url.get_secret_value())) as (process, http):
        await eventually(lambda: ready(http))
        before = await series(http)
        task = Told(log)
        end = await task.tell(*story.COMPLETED)
        answer = await http.get(f"{TASKS}/{task.task_id}", params={"min_seq": end, "wait": 10})
        assert answer.json()["status"] == "completed"
        assert (await http.get(f"{TASKS}/{uuid.uuid4()}")).status_code == 404
        assert (await http.post(TASKS, json={"goal": "x"})).status_code == 503
        assert (await http.get("/openapi.json")).status_code == 200
        after = await series(http)
        moved = {name for name, value in after.items() if value != before.get(name)}
        for name in (
            "octo_projections_events_applied_total|step.executed",
            "octo_projections_batches_total",
            "octo_projections_transaction_seconds_count",
            "octo_projections_checkpoint_seq",
            "octo_projections_stream_end_seq",
            "octo_projections_http_requests_total|GET|/api/v1/tasks/{task_id}|200",
            "octo_projections_http_requests_total|GET|/api/v1/tasks/{task_id}|404",
            "octo_projections_http_request_seconds_count|/api/v1/tasks/{task_id}",
            "octo_projections_proxy_errors_total|ConnectError",
        ):
            assert name in moved, name
        assert after["octo_projections_leader"] == 1
        assert after["octo_projections_lag_events"] == after["octo_projections_lag_seconds"] == 0
        assert after["octo_projections_checkpoint_seq"] == end
        assert after["octo_projections_db_pool_connections|idle"] >= 1
        assert not [name for name in after if task.task_id in name]

        waiting = asyncio.create_task(http.get(TASKS, params={"min_seq": end + 1000, "wait": 10}))
        assert (await http.get("/health")).status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0, errors.decode()
        assert time.monotonic() - began < 3
        assert (await waiting).status_code == 503, "who waits is sent away, not cut off"
        assert b"Traceback" not in output + errors
        assert postgres.url.get_secret_value().encode() not in output + errors


async def test_ready_names_what_is_away(servers: Servers, postgres: PostgresSettings) -> None:
    gate = Gate(postgres.url.get_secret_value())
    await gate.open()
    await gate.shut()
    async with service(environment(servers, gate.url)) as (_, http):
        report: dict[str, Any] = (await http.get("/ready")).json()
        assert set(report["failing"]) == {"postgres", "projector"}
        assert (await http.get("/health")).status_code == 200
        assert (await http.get(TASKS)).status_code == 503
        away = await series(http)
        await gate.open()
        await eventually(lambda: ready(http))
        assert (await http.get(TASKS)).status_code == 200
        back = await series(http)
        for gauge in ("octo_projections_leader", "octo_projections_db_pool_connections|idle"):
            assert away[gauge] < back[gauge], gauge
        await gate.shut()
        await eventually(lambda: not_ready(http))
        await gate.open()
        await eventually(lambda: ready(http))
    await gate.shut()


async def not_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/ready")).status_code == 503


async def test_a_kill_loses_nothing(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    env = environment(servers, postgres.url.get_secret_value())
    tasks = [Told(log) for _ in range(30)]
    for round_ in range(3):
        async with service(env) as (process, http):
            await eventually(lambda: ready(http))
            telling = [task.tell(*story.COMPLETED[3 * round_ : 3 * round_ + 3]) for task in tasks]
            await asyncio.gather(*telling[:15])
            process.kill()
            await process.wait()
            await asyncio.gather(*telling[15:])
    async with service(env) as (_, http):
        for task in tasks:
            answer = await http.get(f"{TASKS}/{task.task_id}", params={"min_seq": task.position.seq, "wait": 10})
            assert (answer.json()["status"], answer.json()["version"]) == ("completed", 9)


async def test_a_rebuild_from_the_command_line(log: Log, servers: Servers, postgres: PostgresSettings) -> None:
    env = environment(servers, postgres.url.get_secret_value())
    end = await Told(log).tell(*story.COMPLETED)
    async with service(env) as (_, http):
        answer = await http.get(TASKS, params={"min_seq": end, "wait": 10})
        assert answer.status_code == 200
        refused = await start(env, "--rebuild")
        assert b"another process projects" in (await refused.communicate())[1]
        assert refused.returncode == 75
    live = await digests(postgres)
    rebuilt = await start(env, "--rebuild")
    output, errors = await rebuilt.communicate()
    assert rebuilt.returncode == 0, errors.decode()
    assert f"up to sequence {end}".encode() in output
    assert await digests(postgres) == live


async def test_a_wrong_setting_stops_the_start(servers: Servers) -> None:
    process = await start(environment(servers, "postgresql://127.0.0.1:9/x", OCTO_PROJECTIONS__POOL_SIZE="none"))
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"OCTO_PROJECTIONS__POOL_SIZE" in errors
    assert b"Traceback" not in errors
