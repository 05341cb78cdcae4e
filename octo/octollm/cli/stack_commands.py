"""Commands about the local stack. What they need is imported when they run, so that `octo --help` is quick."""

from enum import StrEnum
from typing import Annotated

import typer

from octollm.cli.options import DataDir, Json


class PortPolicy(StrEnum):
    """Which ports a stack takes."""

    DEFAULT = "default"
    FREE = "free"


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `octo down` stops it.")
    ] = False,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget everything at the end.")] = False,
    ports: Annotated[
        PortPolicy, typer.Option("--ports", help="The usual ports, or any that are free.")
    ] = PortPolicy.DEFAULT,
    fsync: Annotated[
        bool, typer.Option("--fsync/--no-fsync", help="Have every event on disk before it counts; off is for benches.")
    ] = True,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Start NATS, Postgres, Valkey and all services; Ctrl-C stops them in good order."""
    from octollm.cli import stack_runner
    from octollm.cli.endpoints import data_dir as directory
    from octollm.cli.terminal import Terminal

    start = stack_runner.detached if detach else stack_runner.foreground
    start(Terminal(json), directory(data_dir), ephemeral=ephemeral, ports=ports.value, fsync=fsync)


def down(json: Json = False, data_dir: DataDir = None) -> None:
    """Stop the stack that runs in the background; nothing of it is left."""
    from octollm.cli import stack_runner
    from octollm.cli.endpoints import data_dir as directory
    from octollm.cli.terminal import Terminal

    stack_runner.down(Terminal(json), directory(data_dir))


def ps(json: Json = False, data_dir: DataDir = None) -> None:
    """List the stack's programs: state, address, process, restarts."""
    from octollm.cli import stack_text
    from octollm.cli.endpoints import data_dir as directory
    from octollm.cli.stack_runner import running
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    state = running(directory(data_dir))
    if json:
        terminal.document(stack_text.document(state))
    else:
        terminal.out.print(stack_text.table(state))


def logs(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A program of `octo ps`; all without it.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for what is written.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many of each to begin with.")
    ] = 20,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Print the programs' logs, also those of a stack that has ended."""
    from octollm.cli import stack_logs
    from octollm.cli.endpoints import data_dir as directory
    from octollm.cli.terminal import Terminal

    stack_logs.show(Terminal(json), directory(data_dir), name, lines=lines, follow=follow)


def demo(
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="SERVICE", help="Run with this service stopped, to see the demo fail."),
    ] = None,
    json: Json = False,
) -> None:
    """Start everything, forgotten at the end, run nine tasks, and check each against the log."""
    from octollm.cli.demo.run import run
    from octollm.cli.terminal import Terminal

    raise typer.Exit(run(Terminal(json), frozenset(without or [])))


def doctor(json: Json = False, data_dir: DataDir = None) -> None:
    """Check the stack and this machine; explain what is wrong and how to put it right."""
    from octollm.cli.diagnosis import diagnose
    from octollm.cli.terminal import Terminal

    raise typer.Exit(diagnose(Terminal(json), data_dir))
