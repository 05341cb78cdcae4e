"""Commands for whoever runs the stack: they need the keys in its directory."""

from pathlib import Path
from typing import Annotated

import typer

from octollm.cli.options import DataDir, Json

Program = Annotated[
    list[str] | None, typer.Argument(metavar="[-- PROGRAM ARG…]", help="What to run; no shell is involved.")
]
ActionFile = Annotated[
    Path | None, typer.Option("--action", metavar="FILE", help="An action of a plan instead (JSON; - for stdin).")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=300, help="Limit for its time.")]
Memory = Annotated[int, typer.Option("--memory", metavar="MIB", min=16, max=4096, help="Limit for its memory.")]


def execute(
    program: Program = None,
    action: ActionFile = None,
    timeout: Timeout = 30,
    memory: Memory = 512,
    executor: Annotated[
        str | None, typer.Option("--executor", metavar="URL", help="The executor.", show_default="the local stack's")
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Run one action in the sandbox at once, past planner and log: for trying things out.

    Signs a capability for one use with the stack's own key. 0 done, 1 failed, 2 usage, 75 infrastructure.
    """
    from octollm.cli import endpoints, execution
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    keys = endpoints.data_dir(data_dir) / "keys"
    request = execution.granted(execution.step(action, program or [], timeout, memory), keys)
    raise typer.Exit(execution.execute(terminal, executor or endpoints.executor(data_dir), keys, request))


def grant(
    program: Program = None,
    action: ActionFile = None,
    timeout: Timeout = 30,
    memory: Memory = 512,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Print the signed request that `octo execute` would send, good for one use within a minute.

    For POST /api/v1/execute of the executor, with the operator's key (keys/operator.key) as bearer.
    """
    from octollm.cli import endpoints, execution
    from octollm.cli.terminal import Terminal

    work = execution.step(action, program or [], timeout, memory)
    Terminal(json).document(execution.granted(work, endpoints.data_dir(data_dir) / "keys"))
