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
    receipt: Annotated[
        Path | None,
        typer.Option("--receipt", metavar="FILE", help="An answer of `octo exec`, or a receipt alone (- for stdin)."),
    ] = None,
    receipt_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--receipt-key",
            metavar="FILE",
            help="Public keys that receipts are verified with.",
            show_default="keys/receipt.pub in the stack's directory",
        ),
    ] = None,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Check the hash chain of a task's events, or of all, and the executor's receipts of their results.

    0 all of it holds, 1 it does not, 2 usage or unknown task, 75 the log can't be read. The chain is unsigned: a cut
    tail, a changed last event or a wholly rewritten chain can't be seen. Receipts are signed: who holds the executor's
    key can sign anything, nobody else can. Without a public key they are passed over, and that is said.
    """
    from octollm.cli import endpoints, receipts, verification
    from octollm.cli.failure import Failure
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    keys = receipts.public_keys(receipt_key or [], endpoints.data_dir(data_dir))
    if receipt is not None:
        if every or task is not None or file is not None:
            raise Failure.usage("--receipt goes with no task and no other file", "octo verify --receipt FILE")
        raise typer.Exit(receipts.verify_answer(terminal, receipt, keys))
    if every == (task is not None) and not (file and not task):
        raise Failure.usage("say what to verify: one task, or --all", "octo verify TASK, octo verify --all")
    if file is not None:
        raise typer.Exit(verification.verify_file(terminal, file, task, keys))
    from octollm.cli.api import Api
    from octollm.cli.task_record import resolve

    located = endpoints.locate(api, nats, data_dir)
    task_id = resolve(Api(located.api_url), task) if task else None
    raise typer.Exit(verification.verify_log(terminal, located.nats, task_id, keys))


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

    Each line is {seq, subject, headers, body, stored_at}; the body is base64. No key goes with it, which would prove
    nothing: whoever is to verify the receipts gets keys/receipt.pub from you by another way.
    """
    from octollm.cli import log_export
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import resolve
    from octollm.cli.terminal import Terminal

    endpoints = locate(api, nats, data_dir)
    log_export.export(Terminal(json), endpoints.nats, resolve(Api(endpoints.api_url), task), output)
