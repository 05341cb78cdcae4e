"""Servers that tests share: one broker per module, its tests kept apart by task ids."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.stack import Stack, StackOptions
from tests.servers import given


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats_url() -> AsyncIterator[str]:
    """A nats-server of this module with the streams of the contract: no other module's events meet its consumers."""
    with given("nats") as urls:
        options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
        async with Stack(replace(options, nats_url=urls.get("nats"))) as stack:
            yield stack.nats_url


@pytest_asyncio.fixture
async def nats(nats_url: str) -> AsyncIterator[bus.Client]:
    """A connection of the test's own."""
    client = await bus.connect(NatsSettings(url=nats_url), "test")
    yield client
    await client.close()


@pytest.fixture
def task_id() -> str:
    """A task of the test's own."""
    return str(uuid.uuid4())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip that tests/skips.txt does not list fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    listed = (Path(__file__).parent / "skips.txt").read_text().splitlines()
    allowed = {line.split("  # ")[0].strip() for line in listed if line and not line.startswith("#")}
    unexpected = sorted({report.nodeid for report in reporter.stats.get("skipped", ())} - allowed)
    if unexpected:
        reporter.write_line(f"skipped, but not in tests/skips.txt: {', '.join(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What died where, and what became of the tasks: one line a crash, from every worker."""
    reports = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    lines = [value for report in reports for name, value in report.user_properties if name == "chaos"]
    if lines:
        terminalreporter.section("crashes and outcomes")
        for line in sorted(lines):
            terminalreporter.write_line(line)
