"""The command `octo`: its commands, and the one place where a Failure becomes a message and an exit code."""

import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from octollm.cli import (
    dead_letter_commands,
    operator_commands,
    program_commands,
    proof_commands,
    stack_commands,
    task_commands,
)
from octollm.cli.failure import Exit, Failure
from octollm.cli.options import JSON_KEY
from octollm.cli.terminal import Terminal


class Commands(TyperGroup):
    """Tells failures of any command in one way."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a Failure is printed and becomes its exit code, and so does Ctrl-C."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            Terminal(ctx.meta.get(JSON_KEY, False)).failure(failure)
            raise typer.Exit(failure.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None


app = typer.Typer(
    name="octo",
    help="Turn goals into work that is planned, run in a sandbox, and on record.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TASKS: tuple[Callable[..., None], ...] = (
    task_commands.submit,
    task_commands.watch,
    task_commands.ls,
    task_commands.show,
    task_commands.tail,
    task_commands.cancel,
    task_commands.resume,
)
PROOF: tuple[Callable[..., None], ...] = (
    proof_commands.verify,
    proof_commands.export,
)
OPERATOR: tuple[Callable[..., None], ...] = (
    operator_commands.execute,
    operator_commands.grant,
)
STACK: tuple[Callable[..., None], ...] = (
    stack_commands.up,
    stack_commands.down,
    stack_commands.ps,
    stack_commands.logs,
    stack_commands.demo,
    stack_commands.doctor,
)
for panel, commands in (("Tasks", TASKS), ("Proof", PROOF), ("For the operator", OPERATOR), ("The local stack", STACK)):
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for name, program in (
    ("exec", program_commands.exec_),
    ("policy", program_commands.policy),
    ("screen", program_commands.screen),
):
    app.command(name, rich_help_panel="Programs", context_settings=program_commands.PASSED_ON)(program)
app.add_typer(dead_letter_commands.app, rich_help_panel="For the operator")


def main() -> None:
    """Entry point. What no command foresees is a defect: the trace goes to stderr, the exit code is 75."""
    try:
        app()
    except Exception:
        traceback.print_exc()
        sys.stderr.write("octo: INTERNAL_ERROR  this is a defect of OctoLLM; report it with the lines above\n")
        sys.exit(Exit.INFRASTRUCTURE)


if __name__ == "__main__":
    main()
