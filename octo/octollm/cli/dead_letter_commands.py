"""`octo dlq`: what services have given up, and how its tasks go on."""

from typing import TYPE_CHECKING, Annotated

import typer

from octollm.cli.options import ApiUrl, DataDir, Json, NatsUrl

if TYPE_CHECKING:
    from octollm.cli.dead_letters import DeadLetter
    from octollm.events.config import NatsSettings

app = typer.Typer(
    name="dlq",
    help="Deliveries that a service has given up after five failures, or as they can't be read.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Number = Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The dead letter's number, as `octo dlq ls` has it.")]


@app.command()
def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many of the newest.")] = 50,
    json: Json = False,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """List what was given up, newest first, and what has happened since."""
    from octollm.cli.dead_letters import State
    from octollm.cli.endpoints import locate
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    letters = _newest(locate(None, nats, data_dir).nats, limit)
    if json:
        terminal.document({"dead_letters": [letter.document() for letter in letters]})
    elif not letters:
        terminal.print("nothing was given up")
    else:
        from octollm.cli.dead_letter_text import table

        terminal.out.print(table(letters))
        waiting = sum(letter.state is State.OPEN for letter in letters)
        if waiting:
            terminal.note(f"{waiting} open: put the cause right (octo logs NAME), then octo dlq redrive --all")


@app.command()
def show(number: Number, json: Json = False, nats: NatsUrl = None, data_dir: DataDir = None) -> None:
    """Show one: the event, why it was given up, and what a redrive would do."""
    from octollm.cli.dead_letter_text import advice, full
    from octollm.cli.endpoints import locate
    from octollm.cli.terminal import Terminal

    terminal = Terminal(json)
    letter = _at(locate(None, nats, data_dir).nats, number)
    if not json:
        terminal.print(full(letter))
        return
    terminal.document(letter.document() | {"redrive": advice(letter), "event": letter.payload})


@app.command()
def redrive(
    number: Annotated[
        int | None, typer.Argument(metavar="SEQ", min=1, help="The dead letter's number, as `octo dlq ls` has it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
    json: Json = False,
    api: ApiUrl = None,
    nats: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Have the task of a dead letter resumed, once its cause is put right.

    No event is written again: the orchestrator is sent `task.resume`, reads the task, and does what is left to do.
    """
    from octollm.cli.api import Api
    from octollm.cli.dead_letters import State
    from octollm.cli.endpoints import locate
    from octollm.cli.failure import Failure
    from octollm.cli.task_record import TASKS
    from octollm.cli.terminal import Terminal

    if every == (number is not None):
        raise Failure.usage("say what to redrive: one number, or --all", "octo dlq ls lists them")
    terminal = Terminal(json)
    endpoints = locate(api, nats, data_dir)
    if number is not None:
        letters = [_redrivable(_at(endpoints.nats, number))]
    else:
        found = _newest(endpoints.nats, 10_000)
        letters = [letter for letter in found if letter.state is State.OPEN and letter.task_id]
    commands = Api(endpoints.command_url)
    tasks = list(dict.fromkeys(letter.task_id for letter in letters))
    for task_id in tasks:
        commands.post(f"{TASKS}/{task_id}/resume", {})
        if not json:
            terminal.print(f"task {task_id}: task.resume is on its way")
    if json:
        terminal.document({"resumed": tasks})
    elif not tasks:
        terminal.print("nothing is open")
    else:
        terminal.note("octo dlq ls shows which have gone on; octo watch TASK shows how")


def _redrivable(letter: "DeadLetter") -> "DeadLetter":
    """Raises Failure for a dead letter that no resume can help."""
    from octollm.cli.dead_letter_text import advice
    from octollm.cli.dead_letters import State
    from octollm.cli.failure import Failure

    if letter.state in (State.ENDED, State.GONE) or letter.task_id is None:
        what = advice(letter).removeprefix("nothing: ")
        raise Failure.of_code("CONFLICT", f"dead letter {letter.number}: {what}", task_id=letter.task_id)
    return letter


def _newest(settings: "NatsSettings", limit: int) -> "list[DeadLetter]":
    import asyncio

    from octollm.cli import dead_letters
    from octollm.cli.log_reader import connected, reading

    async def read() -> "list[DeadLetter]":
        async with connected(settings) as client:
            with reading("what was given up"):
                return await dead_letters.newest(client, limit)

    return asyncio.run(read())


def _at(settings: "NatsSettings", number: int) -> "DeadLetter":
    import asyncio

    from octollm.cli import dead_letters
    from octollm.cli.failure import Failure
    from octollm.cli.log_reader import connected, reading

    async def read() -> "DeadLetter | None":
        async with connected(settings) as client:
            with reading("what was given up"):
                return await dead_letters.at(client, number)

    letter = asyncio.run(read())
    if letter is None:
        raise Failure.of_code("NOT_FOUND", f"there is no dead letter {number} (octo dlq ls)")
    return letter
