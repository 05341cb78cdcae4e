"""Commands about what is on record: whether it holds together, and a copy of it."""

from pathlib import Path
from typing import Annotated

import typer

from octollm.cli.options import ApiUrl, DataDir, Json, NatsUrl, TaskId


def verify(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="A task's id, or a beginning that no other id has.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every task on record.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="An export instead of the log (- for stdin); needs no stack."),
    ] = None,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Check the hash chain of a task's events, or of all.

    0 intact, 1 broken, 2 usage or unknown task, 75 the log can't be read. The chain is unsigned: a cut tail, a changed
    last event or a wholly rewritten chain can't be seen.
    """
    from octollm.cli import verification
    from octollm.cli.failure import Failure
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    if every == (task is not None) and not (file and not task):
        raise Failure.usage("say what to verify: one task, or --all", "octo verify TASK, octo verify --all")
    if file is not None:
        raise typer.Exit(verification.verify_file(terminal, file, task))
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import resolve

    endpoints = locate(api, nats, data_dir)
    task_id = resolve(Api(endpoints.api_url), task) if task else None
    raise typer.Exit(verification.verify_log(terminal, endpoints.nats, task_id))


def export(
    task: TaskId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to.", show_default="stdout")
    ] = None,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print a task's events as they are stored, as JSON lines that `octo verify --file` checks anywhere.

    Each line is {seq, subject, headers, body, stored_at}; the body is base64.
    """
    from octollm.cli import log_export
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import resolve
    from octollm.cli.terminal import Terminal

    endpoints = locate(api, nats, data_dir)
    log_export.export(Terminal(json), endpoints.nats, resolve(Api(endpoints.api_url), task), output)
