"""The orchestrator as a process of its own: probes, metrics, an orderly end, and a broker that goes away."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.log import Log
from octollm.events.payload import Payload
from octollm.stack import SERVICES, Stack, StackOptions
from tests.orchestrator.arms import DEADLINE_S, Arms, Script, until, until_ended
from tests.orchestrator.history import PRIVATE_KEY, executed, planned, step

LINE = planned(step("a"), step("b", "a"), step("c", "b"))
KEY_SETTING = "OCTO_ORCHESTRATOR__CAPABILITY_KEY_FILE"
ORCHESTRATOR = tuple(service for service in SERVICES if service.name == "orchestrator")


@asynccontextmanager
async def stack(**environment: str) -> AsyncIterator[Stack]:
    """A broker of the test's own, and the orchestrator as `octo up` runs it."""
    options = StackOptions(
        ephemeral=True,
        ports="free",
        accounts=False,
        servers=frozenset({"nats"}),
        services=ORCHESTRATOR,
        environment=environment,
    )
    async with Stack(options) as running:
        yield running


@asynccontextmanager
async def connection(running: Stack) -> AsyncIterator[bus.Client]:
    client = await bus.connect(NatsSettings(url=running.nats_url), "test")
    try:
        yield client
    finally:
        await client.close()


async def samples(url: str) -> dict[str, float]:
    """Every sample of the orchestrator's own metrics, summed over labels."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("octollm_orchestrator_") and not sample.name.endswith("_created"):
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals


MOVED_BY_A_TASK = {
    "octollm_orchestrator_events_folded_total",
    "octollm_orchestrator_intents_appended_total",
    "octollm_orchestrator_tasks_ended_total",
    "octollm_orchestrator_decisions_total",
    "octollm_orchestrator_timers_set_total",
    "octollm_orchestrator_deliveries_total",
    "octollm_orchestrator_decision_seconds_count",
    "octollm_orchestrator_commands_total",
    "octollm_orchestrator_reads_forward_total",
    "octollm_orchestrator_timers_fired_total",
    "octollm_orchestrator_timers_stale_total",
}


async def test_it_serves_its_probes_and_its_metrics_move() -> None:
    async with stack() as running, connection(running) as client, Arms(client) as arms:
        url, log = running.url("orchestrator"), Log(client, "test")
        before = await samples(url)
        task_id, slow = str(uuid.uuid4()), str(uuid.uuid4())
        # Its deadline comes after its end: a stale timer.
        await arms.submit(slow, Script(LINE), seconds=1)
        await arms.submit(task_id, Script(LINE))
        await until_ended(log, task_id)
        await until_ended(log, slow)
        await arms.cancel(str(uuid.uuid4()))

        async def moved() -> bool:
            after = await samples(url)
            return all(after[name] > before.get(name, 0) for name in MOVED_BY_A_TASK)

        await until(moved, "every series has moved")
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/health")).status_code == 200
            assert (await http.get(f"{url}/ready")).json()["checks"] == {"nats": "ok", "intake": "ok"}


async def test_a_message_that_is_no_event_is_given_up_and_stops_nothing() -> None:
    async with stack() as running, connection(running) as client, Arms(client) as arms:
        await client.jetstream().publish(f"step.executed.{uuid.uuid4()}", b"no event")
        task_id = str(uuid.uuid4())
        await arms.submit(task_id, Script(LINE))
        assert len(await until_ended(Log(client, "test"), task_id)) == 9

        async def given_up() -> bool:
            failures = (await samples(running.url("orchestrator"))).get(
                "octollm_orchestrator_handler_failures_total", 0
            )
            info = await client.jetstream().consumer_info("EVENTS", "saga")
            return failures == 1 and info.num_ack_pending == 0

        await until(given_up, "it is counted once and not delivered again")


async def test_a_kill_at_any_moment_loses_no_task_and_repeats_no_step() -> None:
    async with stack() as running, connection(running) as client, Arms(client) as arms:
        log = Log(client, "test")
        scripts = {str(uuid.uuid4()): Script(LINE) for _ in range(30)}
        submitting = asyncio.gather(*(arms.submit(task_id, script) for task_id, script in scripts.items()))
        first = next(iter(scripts))

        async def begun() -> bool:
            return len(await log.read(first)) > 2

        await until(begun, "work has begun")
        await running.kill("orchestrator")
        await submitting
        await running.ready("orchestrator")
        for task_id, script in scripts.items():
            events = await until_ended(log, task_id)
            assert len(events) == 9
            assert script.steps_seen == ["a", "b", "c"]


async def test_a_broker_that_goes_away_is_waited_for() -> None:
    async with stack() as running, connection(running) as client, Arms(client) as arms:
        url, log, task_id = running.url("orchestrator"), Log(client, "test"), str(uuid.uuid4())
        back = asyncio.Event()

        async def act(step_id: str) -> Payload | None:
            if step_id == "b":
                await back.wait()
            return executed(step_id)

        script = Script(LINE, act)
        await arms.submit(task_id, script)
        await until(lambda: script.steps_seen == ["a", "b"], "the second step runs")
        armed = (await samples(url))["octollm_orchestrator_timers_set_total"]
        await running.kill("nats")

        async def unready() -> bool:
            async with httpx.AsyncClient() as http:
                answer = await http.get(f"{url}/ready")
                return answer.status_code == 503 and answer.json()["failing"] == ["nats"]

        await until(unready, "/ready names nats")
        await running.ready("nats")
        await until(lambda: client.is_connected, "the test is connected again")

        async def armed_again() -> bool:
            return (await samples(url))["octollm_orchestrator_timers_set_total"] > armed

        await until(armed_again, "the open task's deadline is set again")
        back.set()
        assert len(await until_ended(log, task_id)) == 9
        assert all(process.restarts == 0 for process in running.processes() if process.name == "orchestrator")


async def test_sigterm_finishes_what_was_taken_and_the_next_process_goes_on() -> None:
    async with stack() as running, connection(running) as client, Arms(client) as arms:
        (process,) = (process for process in running.processes() if process.name == "orchestrator")
        assert process.pid is not None
        tasks = [str(uuid.uuid4()) for _ in range(20)]
        for task_id in tasks:
            await arms.submit(task_id, Script(LINE))
        os.kill(process.pid, signal.SIGTERM)
        log_file = Path(process.log)
        await until(lambda: '"event": "stopped"' in log_file.read_text(), "it says that it stopped")
        for task_id in tasks:
            assert len(await until_ended(Log(client, "test"), task_id)) == 9
        await until(lambda: log_file.read_text().count('"event": "started"') == 2, "the next process has started")


def start(**environment: str) -> tuple[int, str]:
    """The exit status and stderr of an orchestrator that is not to start."""
    done = subprocess.run(
        [sys.executable, "-m", "octollm.orchestrator"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stderr


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "capability.key"
    path.write_text(PRIVATE_KEY)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("name", "value"), [("OCTO_ORCHESTRATOR__GRACE_SECONDS", "-1"), ("OCTO_ORCHESTRATOR__GRACE", "1")]
)
def test_a_wrong_setting_stops_the_start_and_is_named(name: str, value: str, key_file: Path) -> None:
    status, errors = start(**{KEY_SETTING: str(key_file), name: value})
    assert status == 2
    assert name in errors


def test_without_a_key_nothing_starts(tmp_path: Path) -> None:
    status, errors = start()
    assert status == 2
    assert KEY_SETTING in errors
    status, errors = start(**{KEY_SETTING: str(tmp_path / "none.key")})
    assert status == 2
    assert "none.key can't be read" in errors


def test_a_key_that_others_may_read_or_that_is_none_stops_the_start(key_file: Path) -> None:
    key_file.chmod(0o644)
    status, errors = start(**{KEY_SETTING: str(key_file)})
    assert status == 2
    assert "chmod 600" in errors
    key_file.chmod(0o600)
    key_file.write_text("canary")
    status, errors = start(**{KEY_SETTING: str(key_file)})
    assert status == 2
    assert "holds no Ed25519 private key" in errors
    assert "canary" not in errors
