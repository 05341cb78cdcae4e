"""`octo ps`, `logs`, `down`, `up -d`: what can be said without a whole stack. The demo's test runs one."""

import asyncio
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from octollm.cli import endpoints, stack_runner
from octollm.cli.failure import Exit, Failure
from octollm.cli.terminal import Terminal
from octollm.stack import Progress, Stack, StackOptions, State
from tests.cli.conftest import Octo


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A data directory with two programs' logs."""
    directory = tmp_path / "data"
    (directory / "logs").mkdir(parents=True)
    (directory / "logs" / "nats.log").write_text("".join(f"line {number}\n" for number in range(30)))
    (directory / "logs" / "reflex.log").write_text("\x1b[31mred\n")
    return directory


@pytest.mark.parametrize("command", ["ps", "logs"])
def test_nothing_running_is_infrastructure(octo: Octo, command: str) -> None:
    result = octo(command)
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "octo up" in result.stderr
    assert json.loads(octo(command, "--json").stdout)["error"]["exit_code"] == Exit.INFRASTRUCTURE


def test_down_without_a_stack_is_done(octo: Octo) -> None:
    assert octo("down").exit_code == 0
    assert json.loads(octo("down", "--json").stdout)["stopped"] is False


def test_logs_of_one(octo: Octo, logged: Path) -> None:
    result = octo("logs", "nats", "-n", "2", "--data-dir", str(logged))
    assert result.stdout.splitlines() == ["line 28", "line 29"]


def test_logs_of_all_name_the_program_and_obey_no_escape(octo: Octo, logged: Path) -> None:
    lines = octo("logs", "-n", "1", "--data-dir", str(logged)).stdout.splitlines()
    assert lines == ["nats   │ line 29", "reflex │ ␛[31mred"]


def test_logs_for_machines(octo: Octo, logged: Path) -> None:
    lines = octo("logs", "reflex", "--json", OCTO_STACK__DATA_DIR=str(logged)).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"name": "reflex", "line": "\x1b[31mred"}]


def test_logs_of_nobody_is_usage(octo: Octo, logged: Path) -> None:
    result = octo("logs", "postgers", "--data-dir", str(logged))
    assert result.exit_code == Exit.USAGE
    assert "nats, reflex" in result.stderr


def test_up_in_the_background_wants_a_directory(octo: Octo) -> None:
    assert octo("up", "--detach", "--ephemeral").exit_code == Exit.USAGE


def test_up_tells_why_it_did_not_start(octo: Octo, tmp_path: Path) -> None:
    for name in ("octollm-reflex", "octollm-executor"):
        (tmp_path / name).touch(0o700)
    result = octo("up", "-d", "--ports", "free", OCTO_REFLEX__PORT="none", OCTO_BIN_DIR=str(tmp_path))
    assert result.exit_code == Exit.INFRASTRUCTURE
    assert "OCTO_REFLEX__PORT" in result.stderr
    assert not (tmp_path / ".octo" / "stack.json").exists()


def test_a_terminal_shows_what_starts_until_it_is_ready(tmp_path: Path) -> None:
    terminal, screen = Terminal(False), StringIO()
    terminal.out = Console(file=screen, force_terminal=True, width=120)
    with stack_runner.reporting(terminal, lambda: (None, tmp_path), kept=True) as reported:
        reported(Progress("nats", State.STARTING, 0.0))
        reported(Progress("nats", State.READY, 0.25))
        reported(Progress("stack", State.READY, 0.3))
        before = screen.getvalue()
        assert "250 ms" in before
        reported(Progress("nats", State.STOPPING, 9.0))
        assert screen.getvalue() == before
        reported(Progress("nats", State.RESTARTING, 1.0, "was ended by SIGKILL"))
    assert "was ended by SIGKILL" in screen.getvalue().removeprefix(before)


async def test_ps_and_endpoints_come_from_the_state_file(octo: Octo, tmp_path: Path) -> None:
    options = StackOptions(data_dir=tmp_path / ".octo", ports="free", servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        listed = json.loads((await asyncio.to_thread(octo, "ps", "--json")).stdout)
        shown = (await asyncio.to_thread(octo, "ps")).stdout
        located = endpoints.locate()
        assert located.nats.url == stack.nats_url
        assert located.api_url == endpoints.API_URL
        assert endpoints.locate(nats_url="nats://elsewhere:4222").nats.url == "nats://elsewhere:4222"
        nats_url = stack.nats_url
    assert [process["name"] for process in listed["processes"]] == ["nats"]
    assert listed["processes"][0]["state"] == "ready"
    assert "✓ ready" in shown
    assert nats_url in shown
    assert endpoints.locate().nats.url != nats_url


def test_flags_are_stronger_than_the_environment(octo: Octo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTO_STACK__API_URL", "http://view:1")
    monkeypatch.setenv("OCTO_STACK__REFLEX_URL", "http://reflex:2/")
    both = endpoints.locate()
    assert (both.api_url, both.command_url) == ("http://view:1", "http://reflex:2")
    flagged = endpoints.locate("http://flag:3/")
    assert (flagged.api_url, flagged.command_url) == ("http://flag:3", "http://flag:3")


def test_a_state_file_of_another_version_is_told(octo: Octo, tmp_path: Path) -> None:
    (tmp_path / ".octo").mkdir()
    (tmp_path / ".octo" / "stack.json").write_text("{}")
    with pytest.raises(Failure) as failure:
        endpoints.locate()
    assert "stack.json" in failure.value.message


def test_servers_that_the_configuration_names_are_not_started(octo: Octo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoints.given_servers() == endpoints.GivenServers(None, None, None)
    monkeypatch.setenv("OCTO_POSTGRES__URL", "postgresql://u:secret@db/octollm")
    given = endpoints.given_servers()
    assert given.postgres_url == "postgresql://u:secret@db/octollm"
    assert given.nats_url is None
    assert "secret" not in repr(given)
