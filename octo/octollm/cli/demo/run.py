"""Plays the scenarios on an ephemeral stack and tells how they went."""

import asyncio
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from octollm.cli import stack_text
from octollm.cli.demo.scenarios import SCENARIOS, Scenario
from octollm.cli.demo.stage import Differs, Stage
from octollm.cli.failure import Exit, Failure
from octollm.cli.log_reader import connected
from octollm.cli.stack_runner import failures
from octollm.cli.task_text import duration
from octollm.cli.terminal import Terminal, printable
from octollm.events.config import NatsSettings
from octollm.events.log import Log
from octollm.stack import SERVICES, Progress, Stack, StackOptions, State

SCENARIO_S = 60.0
"""Bound of one scenario, whatever hangs."""

BUDGET_S = 10
BUDGET_WITHOUT_S = 3
"""`max_time_seconds` of every task; with a service missing it is known that most of them use it up."""


@dataclass(frozen=True, slots=True)
class Account:
    """How one scenario went; `difference` is None when it went as it should."""

    number: int
    title: str
    seconds: float
    said: tuple[str, ...]
    difference: str | None

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "number": self.number,
            "title": self.title,
            "passed": self.difference is None,
            "seconds": round(self.seconds, 3),
            "said": list(self.said),
            "difference": self.difference,
        }


def run(terminal: Terminal, without: Collection[str]) -> int:
    """0 when everything went as it should, else 1. Services in `without` don't run. Raises Failure without a stack."""
    if unknown := sorted(set(without) - {row.name for row in SERVICES}):
        known = ", ".join(row.name for row in SERVICES)
        raise Failure.usage(f"there is no service {', '.join(unknown)}", f"there are: {known}")
    with failures():
        try:
            return asyncio.run(_run(terminal, without))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return Exit.INTERRUPTED


async def _run(terminal: Terminal, without: Collection[str]) -> int:
    task = asyncio.current_task()
    assert task
    # A cancelled demo stops its stack; one that is merely ended leaves a directory behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    def reported(progress: Progress) -> None:
        if not terminal.as_json and progress.state in (State.READY, State.FAILED) and progress.name != stack_text.STACK:
            terminal.print(stack_text.report(progress))

    options = StackOptions(
        ephemeral=True,
        ports="free",
        services=tuple(row for row in SERVICES if row.name not in without),
        environment={"OCTO_PLANNER__PROVIDER": "offline"},
        progress=reported,
    )
    began = time.monotonic()
    async with Stack(options) as stack:
        started = time.monotonic() - began
        if not terminal.as_json:
            terminal.print(f"started in {duration(started * 1000)}, on free ports, with data that is forgotten\n")
        accounts = await _play(terminal, stack, BUDGET_WITHOUT_S if without else BUDGET_S)
    return _conclude(terminal, accounts, started, time.monotonic() - began)


async def _play(terminal: Terminal, stack: Stack, budget_s: int) -> list[Account]:
    addresses = {p.name: p.address for p in stack.processes() if p.kind.value == "service"}
    accounts = []
    async with connected(NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file()), "octo-demo") as client:
        for number, scenario in enumerate(SCENARIOS, 1):
            stage = Stage(
                client=client,
                log=Log(client, "octo-demo"),
                api_url=stack.url("projections"),
                nats_url=stack.nats_url,
                nkey_file=stack.nkey_file(),
                data_dir=stack.data_dir,
                services=addresses,
                budget_s=budget_s,
            )
            accounts.append(await _account(number, scenario, stage))
            if not terminal.as_json:
                terminal.print(_text(accounts[-1]))
    return accounts


async def _account(number: int, scenario: Scenario, stage: Stage) -> Account:
    began = time.monotonic()
    difference = None
    try:
        async with asyncio.timeout(SCENARIO_S):
            await scenario.play(stage)
    except Differs as differs:
        difference = str(differs)
    except TimeoutError:
        difference = f"it wasn't over after {SCENARIO_S:g} s"
    except Exception as error:  # whatever goes wrong in one scenario, the others are still told
        difference = f"{type(error).__name__}: {error}"
    return Account(number, scenario.title, time.monotonic() - began, tuple(stage.said), difference)


def _text(account: Account) -> Text:
    passed = account.difference is None
    text = Text()
    text.append(f"{account.number} ", style="bold")
    text.append("✓ " if passed else "✗ ", style="green" if passed else "red")
    text.append(f"{printable(account.title):<70}", style="bold")
    text.append(f"{duration(account.seconds * 1000):>9}\n", style="dim")
    for line in account.said:
        text.append(f"    {printable(line.rstrip())}\n", style="dim")
    if account.difference is not None:
        text.append(f"    {printable(account.difference)}\n", style="red")
    return text


def _conclude(terminal: Terminal, accounts: list[Account], started: float, seconds: float) -> int:
    failed = [account for account in accounts if account.difference is not None]
    if terminal.as_json:
        terminal.document(
            {
                "passed": len(accounts) - len(failed),
                "failed": len(failed),
                "start_seconds": round(started, 3),
                "seconds": round(seconds, 3),
                "scenarios": [account.document() for account in accounts],
            }
        )
    else:
        as_expected = f"{len(accounts) - len(failed)} of {len(accounts)} scenarios went as they should"
        terminal.print(f"{as_expected}, {duration(seconds * 1000)} in all (start {duration(started * 1000)})")
    return Exit.FAILED if failed else Exit.DONE
