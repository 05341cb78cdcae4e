"""One action, run at once by the executor on the operator's word: granted, sent, told. Nothing of it is in the log."""

import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from octollm.cli.api import Api
from octollm.cli.failure import Failure, facts
from octollm.cli.terminal import Terminal, printable
from octollm.events.capability import EXECUTE, Grant, KeyUnusable, SigningKey
from octollm.events.carrier import Effect, ErrorCode, Limits, OutputStream, Purpose, Step, StepExecuted, StepFailed

PATH = "/api/v1/execute"
LASTS = timedelta(seconds=60)
"""How long a token is good that is to be used at once."""

MARGIN_S = 60.0
"""What an answer may take on top of the action's own wall clock: other work may be ahead of it."""


def step(action: Path | None, argv: list[str], wall_s: float, memory_mib: int) -> Step:
    """The step for an action in a file (JSON, `-` for stdin) or for a program with its arguments. Raises Failure."""
    if (action is None) is not bool(argv):
        raise Failure.usage("say what to run: an action in a file, or a program", "octo execute -- echo hello")
    given = {"kind": "command", "pipeline": [argv]} if action is None else _read(action)
    limits = Limits(wall_ms=round(wall_s * 1000), memory_bytes=memory_mib * 1024 * 1024, output_bytes=1024 * 1024)
    draft = {
        "id": "execute",
        "title": "Run by the operator",
        "arm": "executor",
        "action": given,
        "depends_on": [],
        "acceptance": [],
        # Nobody can say, and it never runs twice.
        "effect": Effect.side_effecting,
        "limits": msgspec.to_builtins(limits),
    }
    try:
        return msgspec.convert(draft, Step)
    except msgspec.ValidationError as error:
        raise Failure.usage(f"this is no action: {error}", "events/schemas/plan/v1.json has the forms") from error


def granted(work: Step, keys: Path) -> dict[str, Any]:
    """The request: the step as a task of its own, with a token for one use within a minute. Raises Failure."""
    task_id = str(uuid.uuid4())
    grant = Grant(
        audience=EXECUTE,
        task_id=task_id,
        plan_version=1,
        attempt=1,
        purpose=Purpose.run,
        step=work,
        expires=datetime.now(UTC) + LASTS,
    )
    try:
        token = SigningKey.load(keys / "capability.key").sign(grant)
    except KeyUnusable as error:
        raise Failure.usage(str(error), "name the stack's directory with --data-dir") from error
    return {"task_id": task_id, "step": msgspec.to_builtins(work), "capability": token}


def execute(terminal: Terminal, url: str, keys: Path, request: dict[str, Any]) -> int:
    """Sends the request and tells what came of it; the exit code."""
    key = _operator_key(keys / "operator.key")
    patience = request["step"]["limits"]["wall_ms"] / 1000 + MARGIN_S
    answer = Api(url, patience, bearer=key).post(PATH, request)
    report = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(report, dict):
        raise Failure.unreachable("the executor", url, "what answers is no executor of this version")
    result: StepExecuted | StepFailed
    result = msgspec.convert(report, StepFailed) if "code" in report else msgspec.convert(report, StepExecuted)
    if terminal.as_json:
        terminal.document(answer)
    else:
        _tell(terminal, result)
    if isinstance(result, StepExecuted):
        return 0
    hint, exit_code = facts(result.code.value)
    if result.code is ErrorCode.STEP_FAILED:
        hint = "Read what it printed: it stands above, and nowhere else."  # the list's hint names a task on record
    failure = Failure(result.message, hint, exit_code, code=result.code.value)
    if not terminal.as_json:
        terminal.failure(failure)
    return failure.exit_code


def _operator_key(path: Path) -> str:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise Failure.usage(
            f"the operator's key {path} can't be read: {error.strerror}", "name the stack's directory with --data-dir"
        ) from error
    if not key.isalnum():
        raise Failure.usage(f"{path} doesn't hold the operator's key", "restore it; octo up makes one where none is")
    return key.decode()


def _tell(terminal: Terminal, result: StepExecuted | StepFailed) -> None:
    if isinstance(result.output, msgspec.UnsetType):
        return
    terminal.print(_text(result.output.stdout), end="")
    terminal.err.print(_text(result.output.stderr), end="", soft_wrap=True)
    if isinstance(result, StepExecuted):
        terminal.note(f"exit {result.exit_code} in {result.usage.duration_ms} ms")


def _text(stream: OutputStream) -> str:
    if not stream.truncated:
        return printable(stream.head + stream.tail)
    return printable(f"{stream.head}\n… {stream.bytes} bytes in all …\n{stream.tail}")


def _read(path: Path) -> Any:
    try:
        return json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure.usage(f"{path} can't be read: {error.strerror}", "check the path") from error
    except ValueError as error:
        raise Failure.usage(
            f"{path} isn't JSON: {error}", 'write {"kind": "command", "pipeline": [["echo"]]}'
        ) from error
