"""Commands about tasks. What they need is imported when they run, so that `octo --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from octollm.cli.options import ApiUrl, DataDir, Json, NatsUrl, TaskId

Wait = Annotated[
    float | None,
    typer.Option(
        "--wait", metavar="SECONDS", min=0.1, help="Stop watching after that; exit code 4.", show_default="for ever"
    ),
]
MinSeq = Annotated[
    int | None, typer.Option("--min-seq", metavar="SEQ", min=1, help="Wait until the view knows this event.")
]


def submit(
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="What is to be done, in plain words.")],
    constraint: Annotated[list[str] | None, typer.Option("--constraint", help="What must be respected.")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="CRITERION", help="When it counts as done: prose, or a JSON criterion."),
    ] = None,
    context: Annotated[str | None, typer.Option("--context", metavar="JSON|@FILE", help="What else to know.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Your own plan (JSON; - for stdin): no model is asked."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="PATH[:DEST]", help="A file or directory for the task's workspace."),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", "--budget-cost", metavar="USD", help="Limit for model calls.", min=0)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "--budget-tokens", metavar="N", help="Limit for model calls.", min=1)
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option("--timeout", "--budget-time", metavar="SECONDS", help="Limit for the whole task.", min=1),
    ] = None,
    max_retries: Annotated[
        int | None, typer.Option("--max-retries", "--budget-retries", metavar="N", help="Replans and retries.", min=0)
    ] = None,
    priority: Annotated[str | None, typer.Option(metavar="low|medium|high|critical", help="Orders admission.")] = None,
    task_id: Annotated[
        str | None, typer.Option(metavar="UUID", help="Your own id: submitting the same again is harmless.")
    ] = None,
    retry_of: Annotated[
        str | None, typer.Option(metavar="UUID", help="The finished task that this one retries.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="For your own use.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    wait: Wait = None,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Submit a goal; --watch follows it and ends with its exit code.

    0 done, 1 failed, 2 usage, 3 rejected, 4 not ended, 5 budget, 6 cancelled, 75 infrastructure.
    """
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.submission import body
    from octollm.cli.task_record import TASKS
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    submission = body(
        goal,
        constraints=constraint or [],
        accept=accept or [],
        context=context,
        metadata=metadata,
        plan=plan,
        files=file or [],
        budget={
            "max_cost_usd": max_cost,
            "max_tokens": max_tokens,
            "max_time_seconds": timeout,
            "max_retries": max_retries,
        },
        priority=priority,
        task_id=task_id,
        retry_of=retry_of,
    )
    endpoints = locate(api, nats, data_dir)
    accepted = Api(endpoints.command_url).post(TASKS, submission)
    if watch:
        from octollm.cli.watching import watch as follow

        terminal.note(f"task {accepted['task_id']} is on record (sequence {accepted['seq']})")
        raise typer.Exit(follow(terminal, endpoints.nats, accepted["task_id"], wait))
    if json:
        terminal.document(accepted)
    else:
        terminal.print(accepted["task_id"])
        terminal.note(f"on record at sequence {accepted['seq']}; octo watch {accepted['task_id']}")


def watch(
    task: TaskId,
    wait: Wait = None,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow a task to its end; the exit code says how it ended."""
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import resolve
    from octollm.cli.terminal import Terminal
    from octollm.cli.watching import watch as follow

    endpoints = locate(api, nats, data_dir)
    raise typer.Exit(follow(Terminal(json), endpoints.nats, resolve(Api(endpoints.api_url), task), wait))


def ls(
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="pending, in_progress, completed, failed, cancelled or rejected; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    min_seq: MinSeq = None,
    json: Json = False,
    api: ApiUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List the newest tasks."""
    from datetime import UTC, datetime

    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import newest
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    tasks = newest(Api(locate(api, None, data_dir).api_url), limit, status or [], min_seq)
    if json:
        terminal.document({"tasks": tasks})
    elif not tasks:
        terminal.note(
            "no task is on record" + (f" with status {', '.join(status)}" if status else "; octo submit GOAL")
        )
    else:
        from octollm.cli.task_list import table

        terminal.out.print(table(tasks, datetime.now(UTC)))


def show(
    task: TaskId, min_seq: MinSeq = None, json: Json = False, api: ApiUrl = None, data_dir: DataDir = None
) -> None:
    """Show a task: its plan, its steps, how it ended and why."""
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import read, resolve, view_of
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    view = Api(locate(api, None, data_dir).api_url)
    record = read(view, resolve(view, task), min_seq)
    if json:
        terminal.document(record)
        return
    from octollm.cli.task_text import following, outcome

    shown = view_of(record)
    terminal.note(f"{shown.task_id}  {record['task']['created_at']}")
    terminal.print(following(shown), end="")
    if shown.ended:
        terminal.print(outcome(shown), end="")


def tail(
    task: Annotated[str | None, typer.Option("--task", help="Only this task (an id or its beginning).")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only such events: step.executed, or step for all; repeatable.")
    ] = None,
    since: Annotated[
        int | None, typer.Option("--since", metavar="SEQ", min=1, help="Begin there.", show_default="near the end")
    ] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when the task has ended.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for what comes.")] = True,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print events from the log as they are stored."""
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.tailing import tail as read
    from octollm.cli.task_record import resolve
    from octollm.cli.terminal import Terminal

    endpoints = locate(api, nats, data_dir)
    read(
        Terminal(json),
        endpoints.nats,
        task_id=resolve(Api(endpoints.api_url), task) if task else None,
        kinds=kind or [],
        since=since,
        until_end=until_end,
        follow=follow,
    )


def cancel(
    task: TaskId,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it goes on record.")] = None,
    json: Json = False,
    api: ApiUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Ask for a task to be stopped, running steps included."""
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import TASKS, require_unended, resolve
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    endpoints = locate(api, None, data_dir)
    view = Api(endpoints.api_url)
    task_id = resolve(view, task)
    require_unended(view, task_id)
    answer = Api(endpoints.command_url).post(f"{TASKS}/{task_id}/cancel", {"reason": reason} if reason else {})
    if json:
        terminal.document(answer)
    else:
        terminal.print(f"task {task_id}: the cancel is on its way")
        terminal.note(f"octo watch {task_id} shows when it is done")


def resume(
    task: TaskId,
    note: Annotated[str | None, typer.Option("--note", help="Why.")] = None,
    json: Json = False,
    api: ApiUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have a task that stands still looked at again: what is left to do is done."""
    from octollm.cli.api import Api
    from octollm.cli.endpoints import locate
    from octollm.cli.task_record import TASKS, require_unended, resolve
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    endpoints = locate(api, None, data_dir)
    view = Api(endpoints.api_url)
    task_id = resolve(view, task)
    require_unended(view, task_id)
    answer = Api(endpoints.command_url).post(f"{TASKS}/{task_id}/resume", {"note": note} if note else {})
    if json:
        terminal.document(answer)
    else:
        terminal.print(f"task {task_id}: the resume is on its way")
        terminal.note(f"octo watch {task_id} shows what comes of it")
