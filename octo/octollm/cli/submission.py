"""The body of a submission, from what the command line says. The contract itself is checked by reflex."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octollm.cli.failure import Failure
from octollm.cli.workspace import read_files


def body(
    goal: str,
    *,
    constraints: Sequence[str],
    accept: Sequence[str],
    context: str | None,
    metadata: str | None,
    plan: Path | None,
    files: Sequence[str],
    budget: dict[str, Any],
    priority: str | None,
    task_id: str | None,
    retry_of: str | None,
) -> dict[str, Any]:
    """The submission; what isn't given is left out, so that reflex fills in the defaults. Raises Failure."""
    given = {
        "goal": goal,
        "constraints": list(constraints),
        "acceptance_criteria": [criterion(text) for text in accept],
        "context": _object("--context", context),
        "metadata": _object("--metadata", metadata),
        "plan": _plan(plan),
        "files": read_files(files),
        "budget": {name: value for name, value in budget.items() if value is not None},
        "priority": priority,
        "task_id": task_id,
        "retry_of": retry_of,
    }
    return {name: value for name, value in given.items() if value not in (None, [], {})}


def criterion(text: str) -> str | dict[str, Any]:
    """Prose stays prose; what begins with a brace is a machine criterion in JSON."""
    if not text.lstrip().startswith("{"):
        return text
    return _parsed("--accept", text)


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    """JSON, or `@file` with JSON in it."""
    if text is None:
        return None
    return _parsed(option, _content(option, Path(text[1:])) if text.startswith("@") else text)


def _plan(path: Path | None) -> dict[str, Any] | None:
    return None if path is None else _parsed(f"--plan {path}", _content("--plan", path))


def _content(option: str, path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure.usage(f"{option}: {path} can't be read: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise Failure.usage(f"{option}: {path} isn't UTF-8 text", "give a JSON file") from error


def _parsed(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Failure.usage(f"{option} isn't JSON: {error}", "mind your shell's quoting, or use @file") from error
    if not isinstance(value, dict):
        raise Failure.usage(f"{option} must be a JSON object", 'write it as {"name": value, …}')
    return value
