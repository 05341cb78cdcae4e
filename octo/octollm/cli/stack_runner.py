"""Starts a local stack, here or in the background, and stops it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from octollm.cli import endpoints, stack_text
from octollm.cli.failure import Exit, Failure
from octollm.cli.terminal import Terminal
from octollm.stack import NotRunning, Progress, Stack, StackError, StackOptions, StackState, State, logs
from octollm.stack import state as stack_state

Ports = Literal["default", "free"]

POLL_S = 0.05
REDRAWS_PER_SECOND = 10

_WORTH_A_LINE = (State.READY, State.RESTARTING, State.FAILED)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """The stack's errors as Failures; their messages say what to do next."""
    try:
        yield
    except NotRunning as error:
        raise Failure(str(error), "start one with `octo up`", Exit.INFRASTRUCTURE) from error
    except StackError as error:
        raise Failure(str(error), "`octo doctor` looks for the cause", Exit.INFRASTRUCTURE) from error


def running(data_dir: Path) -> StackState:
    """The stack that runs on `data_dir`; raises Failure when none does."""
    with failures():
        return stack_state.running(data_dir)


def foreground(terminal: Terminal, data_dir: Path, *, ephemeral: bool, ports: Ports, fsync: bool) -> None:
    """Runs until SIGINT or SIGTERM. Raises Failure when a program can't be started or keeps dying."""

    def describe() -> tuple[StackState | None, Path]:
        return stack_state.read(stack.data_dir), stack.data_dir

    given = endpoints.given_servers()
    with reporting(terminal, describe, kept=not ephemeral) as reported, failures():
        options = StackOptions(
            data_dir=data_dir,
            ephemeral=ephemeral,
            ports=ports,
            fsync=fsync,
            nats_url=given.nats_url,
            postgres_url=given.postgres_url,
            redis_url=given.redis_url,
            progress=reported,
        )
        stack = Stack(options)
        asyncio.run(stack.run())


def detached(terminal: Terminal, data_dir: Path, *, ephemeral: bool, ports: Ports, fsync: bool) -> None:
    """Starts `octo up` in a session of its own and returns when it is ready."""
    if ephemeral:
        raise Failure.usage(
            "--detach and --ephemeral exclude each other: nothing would find the stack again", "drop one"
        )
    log = logs.log_file(data_dir / "logs", stack_text.STACK)
    command = [sys.executable, "-P", "-m", "octollm.cli.main", "up", "--json", "--data-dir", str(data_dir)]
    command += ["--ports", ports, "--fsync" if fsync else "--no-fsync"]
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with logs.open_log(log) as written:
        begin = written.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True
        )
    with (
        reporting(terminal, lambda: (stack_state.read(data_dir), data_dir), kept=True) as reported,
        log.open("rb") as file,
    ):
        file.seek(begin)
        try:
            for line in _lines(file, child):
                if "error" in line:
                    error = line["error"]
                    raise Failure(error["detail"], error["hint"], error["exit_code"])
                reported(Progress(line["name"], State(line["state"]), line["seconds"], line["detail"]))
                if line["name"] == stack_text.STACK and line["state"] == State.READY:
                    return
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    raise Failure(
        f"the stack ended while it was starting; {logs.quoted(log, since=begin)}", "octo doctor", Exit.INFRASTRUCTURE
    )


def down(terminal: Terminal, data_dir: Path) -> None:
    """Stops the stack on `data_dir`; that none runs is no error."""
    began = time.monotonic()
    with failures():
        state = stack_state.read(data_dir)
        if state is not None:
            asyncio.run(stack_state.down(data_dir))
    if terminal.as_json:
        terminal.document({"stopped": state is not None, "seconds": round(time.monotonic() - began, 3)})
    elif state is None:
        terminal.note(f"no stack runs on {data_dir}")
    else:
        terminal.print(f"stopped after {time.monotonic() - began:.1f} s; data in {data_dir} is kept")


@contextlib.contextmanager
def reporting(
    terminal: Terminal, describe: Callable[[], tuple[StackState | None, Path]], *, kept: bool
) -> Iterator[Callable[[Progress], None]]:
    """Gives what takes reports: redrawn until everything is ready, line by line afterwards and into a pipe."""
    starting = stack_text.Starting()
    with contextlib.ExitStack() as display:
        drawn = terminal.interactive
        if drawn:
            from rich.live import Live

            display.enter_context(Live(starting, console=terminal.out, refresh_per_second=REDRAWS_PER_SECOND))

        def reported(progress: Progress) -> None:
            nonlocal drawn
            if terminal.as_json:
                terminal.line(_document(progress))
                return
            starting.add(progress)
            if progress.name != stack_text.STACK:
                if not drawn and progress.state in _WORTH_A_LINE:
                    terminal.print(stack_text.report(progress))
                return
            if progress.state is State.READY:
                display.close()
                drawn = False
                state, directory = describe()
                if state:
                    terminal.print(stack_text.ready(state, str(directory), progress.seconds, kept=kept))
            elif progress.state is State.STOPPING:
                display.close()
                terminal.note("stopping …")
            elif progress.state is State.STOPPED:
                terminal.note("stopped")

        yield reported


def _document(progress: Progress) -> dict[str, Any]:
    return {
        "name": progress.name,
        "state": progress.state.value,
        "seconds": round(progress.seconds, 3),
        "detail": progress.detail,
    }


def _lines(file: IO[bytes], child: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """JSON lines that the child writes, until it ends; other lines are its trouble and stay in the log."""
    rest = b""
    while True:
        ended = child.poll() is not None
        *whole, rest = (rest + file.read()).split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError):
                document = json.loads(line)
                if isinstance(document, dict):
                    yield document
        if ended:
            return
        time.sleep(POLL_S)
