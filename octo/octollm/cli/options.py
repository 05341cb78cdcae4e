"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

JSON_KEY = "octollm.json"
"""Where a context notes that --json was given, for errors of a command that is over by then."""


def _noted(context: typer.Context, value: bool) -> bool:
    context.meta[JSON_KEY] = value
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.", callback=_noted)]
ApiUrl = Annotated[
    str | None, typer.Option("--api", metavar="URL", help="The REST view.", show_default="the local stack's")
]
NatsUrl = Annotated[
    str | None, typer.Option("--nats", metavar="URL", help="The event log.", show_default="the local stack's")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="The local stack's directory.", show_default=".octo")
]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A task's id, or a beginning that no other id has.")]
