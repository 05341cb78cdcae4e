"""Commands that are programs of their own: their arguments are handed on unread, and their exit code is ours."""

import typer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""So that even `--help` is answered by the program."""


def exec_(ctx: typer.Context) -> None:
    """Run one action in the sandbox, without broker or planner; `octo exec --help` tells more."""
    _become("octollm-executor", "exec", ctx)


def policy(ctx: typer.Context) -> None:
    """Check, explain or compare executor policies; `octo policy --help` tells more."""
    _become("octollm-executor", "policy", ctx)


def screen(ctx: typer.Context) -> None:
    """Screen text for personal data, secrets and prompt injection; `octo screen --help` tells more."""
    _become("octollm-reflex", "screen", ctx)


def _become(program: str, subcommand: str, ctx: typer.Context) -> None:
    import os
    import sys

    from octollm.cli.failure import Exit, Failure
    from octollm.stack import StackOptions
    from octollm.stack.errors import Missing
    from octollm.stack.services import find

    try:
        # Not the context's arguments: `--` is missing there, which means something to the program.
        given = sys.argv[sys.argv.index(str(ctx.info_name)) + 1 :]
        argv = find((program, subcommand, *given), StackOptions().bin_dir)
    except Missing as missing:
        hint = "build the programs with `cargo build --release`, or say where they are (OCTO_BIN_DIR)"
        raise Failure(str(missing), hint, Exit.INFRASTRUCTURE) from missing
    os.execv(argv[0], argv)  # noqa: S606 an argument vector, to a program of ours
