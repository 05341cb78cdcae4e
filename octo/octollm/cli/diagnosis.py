"""`octo doctor`: runs every check that applies, and tells what was found."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from rich.text import Text

from octollm.cli import endpoints, machine_checks, stack_checks
from octollm.cli.failure import Exit
from octollm.cli.finding import Finding, Verdict, ok, wrong
from octollm.cli.terminal import Terminal, printable
from octollm.stack import StackError, StackOptions, StackState
from octollm.stack import state as stack_state

_MARKS = {Verdict.OK: ("✓", "green"), Verdict.NOTE: ("!", "yellow"), Verdict.WRONG: ("✗", "red")}


def diagnose(terminal: Terminal, data_dir: Path | None) -> int:
    """0 when nothing is wrong, else 75; every check is made, whatever the others found."""
    findings = asyncio.run(_collect(terminal, data_dir))
    healthy = all(finding.verdict is not Verdict.WRONG for finding in findings)
    if terminal.as_json:
        terminal.document({"ok": healthy, "checks": [finding.document() for finding in findings]})
    else:
        wrongs = sum(finding.verdict is Verdict.WRONG for finding in findings)
        terminal.print("everything is as it should be" if healthy else f"{wrongs} of {len(findings)} checks failed")
    return Exit.DONE if healthy else Exit.INFRASTRUCTURE


async def _collect(terminal: Terminal, data_dir: Path | None) -> list[Finding]:
    findings = []
    async for finding in _checks(data_dir):
        findings.append(finding)
        if not terminal.as_json:
            terminal.print(_text(finding))
    return findings


async def _checks(data_dir: Path | None) -> AsyncIterator[Finding]:
    where = endpoints.locate(directory=data_dir)
    directory = endpoints.data_dir(data_dir)
    options = StackOptions()
    yield machine_checks.versions()
    for finding in machine_checks.programs(options.nats_server_bin, options.bin_dir):
        yield finding
    yield machine_checks.disk(directory)
    state = _running(directory)
    if state is None and not where.named:
        yield wrong("stack", f"no stack runs on {directory}", "start one with `octo up`")
        for finding in machine_checks.ports():
            yield finding
        return
    async for finding in _live(where, state, directory):
        yield finding


async def _live(where: endpoints.Endpoints, state: StackState | None, directory: Path) -> AsyncIterator[Finding]:
    services = {"projections": where.api_url, "reflex": where.command_url}
    if state is not None:
        yield ok("stack", f"runs on {directory} (pid {state.pid}) since {state.started_at}")
        services = {process.name: process.address for process in state.processes if process.kind.value == "service"}
        async for finding in stack_checks.supervised(state):
            yield finding
    async for finding in stack_checks.broker(where.nats):
        yield finding
    if state is not None:
        yield await stack_checks.broker_fsync(directory)
        if state.postgres_url:
            yield await stack_checks.postgres(state.postgres_url)
        if state.redis_url:
            yield await stack_checks.redis(state.redis_url)
    for name, address in services.items():
        async for finding in stack_checks.service(name, address):
            yield finding


def _running(directory: Path) -> StackState | None:
    try:
        return stack_state.running(directory)
    except StackError:
        return None


def _text(finding: Finding) -> Text:
    mark, style = _MARKS[finding.verdict]
    text = Text()
    text.append(f"{mark} ", style=style)
    text.append(f"{finding.name:<18}", style="bold")
    text.append(printable(finding.detail))
    if finding.fix:
        text.append(f"\n    → {printable(finding.fix)}", style="cyan")
    return text
