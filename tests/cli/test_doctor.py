"""`octo doctor`: what is wrong is found, named, and comes with a fix."""

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octollm.cli import machine_checks, stack_checks
from octollm.cli.failure import Exit
from octollm.cli.finding import Finding, Verdict
from octollm.events import bus, streams
from octollm.events.config import NatsSettings
from octollm.stack import Stack, StackOptions
from octollm.stack.ports import DEFAULTS
from tests.cli.conftest import FakeServer, Octo


async def collected(findings: AsyncIterator[Finding]) -> list[Finding]:
    found = [finding async for finding in findings]
    assert all(finding.fix for finding in found if finding.verdict is Verdict.WRONG)
    return found


def test_nothing_running_is_75_with_the_fix(octo: Octo) -> None:
    result = octo("doctor", "--json")
    assert result.exit_code == Exit.INFRASTRUCTURE
    report = json.loads(result.stdout)
    assert report["ok"] is False
    [stack] = [check for check in report["checks"] if check["name"] == "stack"]
    assert stack["verdict"] == "wrong"
    assert "octo up" in stack["fix"]
    assert {"versions", "programs", "disk", "ports"} <= {check["name"] for check in report["checks"]}


def test_people_get_lines_and_a_conclusion(octo: Octo) -> None:
    result = octo("doctor")
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "→ start one with `octo up`" in result.stdout
    assert "checks failed" in result.stdout


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(machine_checks.programs(str(tmp_path / "no-nats"), None))
    assert any(finding.verdict is Verdict.WRONG and "no-nats" in finding.detail for finding in found)


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "LEAST_FREE_BYTES", 1 << 62)
    assert machine_checks.disk(tmp_path / "not" / "made" / "yet").verdict is Verdict.WRONG


def test_a_taken_port_names_its_owner(octo: Octo, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine_checks, "DEFAULTS", dict(DEFAULTS) | {"nats": port})
        found = [finding for finding in machine_checks.ports() if finding.verdict is Verdict.WRONG]
    assert any(f"port {port} is used by pid" in finding.detail for finding in found)


@pytest.mark.parametrize(
    ("status", "body", "verdicts"),
    [
        (200, {"status": "ready", "checks": {"nats": "ok"}}, {"reflex": Verdict.OK}),
        (
            200,
            {"status": "ready", "checks": {"nats": "ok", "redis": "down; answers come uncached"}},
            {"reflex redis": Verdict.NOTE, "reflex": Verdict.OK},
        ),
        (503, {"status": "unavailable", "checks": {"nats": "not connected"}}, {"reflex nats": Verdict.WRONG}),
        (500, b"oops", {"reflex": Verdict.WRONG}),
        (503, {}, {"reflex": Verdict.WRONG}),
    ],
)
async def test_a_service_says_what_it_lacks(
    server: FakeServer, status: int, body: object, verdicts: dict[str, Verdict]
) -> None:
    server.tell("GET", "/ready", status, body)
    found = await collected(stack_checks.service("reflex", server.url))
    assert {finding.name: finding.verdict for finding in found} == verdicts


async def test_a_service_that_is_gone(closed_port: int) -> None:
    [finding] = await collected(stack_checks.service("reflex", f"http://127.0.0.1:{closed_port}"))
    assert finding.verdict is Verdict.WRONG
    assert "octo logs reflex" in finding.fix


async def test_a_broker_as_it_should_be(nats_url: str) -> None:
    found = await collected(stack_checks.broker(NatsSettings(url=nats_url)))
    assert [(finding.name, finding.verdict) for finding in found] == [("nats", Verdict.OK), ("streams", Verdict.OK)]


async def test_a_broker_without_streams_and_without_fsync() -> None:
    options = StackOptions(
        ephemeral=True,
        ports="free",
        accounts=False,
        servers=frozenset({"nats"}),
        services=(),
        bootstrap=None,
        fsync=False,
    )
    async with Stack(options) as stack:
        found = await collected(stack_checks.broker(NatsSettings(url=stack.nats_url)))
        details = [finding.detail for finding in found if finding.verdict is Verdict.WRONG]
        assert any("stream EVENTS: existence" in detail for detail in details)
        assert (await stack_checks.broker_fsync(stack.data_dir)).verdict is Verdict.WRONG
        # Looking made nothing.
        client = await bus.connect(NatsSettings(url=stack.nats_url), "test")
        with pytest.raises(streams.StreamDrift):
            await streams.ensure(client, make=False)
        await client.close()


async def test_fsync_of_a_stack_with_it() -> None:
    options = StackOptions(ephemeral=True, ports="free", servers=frozenset({"nats", "postgres"}), services=())
    async with Stack(options) as stack:
        assert (await stack_checks.broker_fsync(stack.data_dir)).verdict is Verdict.OK
        assert (await stack_checks.postgres(stack.postgres_url)).verdict is Verdict.OK
        assert (await stack_checks.redis("redis://127.0.0.1:1/0")).verdict is Verdict.WRONG


async def test_servers_that_are_gone(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_checks, "PATIENCE_S", 0.5)
    [finding] = await collected(stack_checks.broker(NatsSettings(url=f"nats://127.0.0.1:{closed_port}")))
    assert finding.verdict is Verdict.WRONG
    gone = await stack_checks.postgres(f"postgresql://octollm:secret@127.0.0.1:{closed_port}/octollm")
    assert gone.verdict is Verdict.WRONG
    assert "secret" not in gone.detail
