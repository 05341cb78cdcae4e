"""The one list of errors, and RFC 9457 problems made from it."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from octollm.events.carrier import ErrorCode


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What is fixed for a code: HTTP status, exit code of `octo`, title, and what to do next."""

    code: ErrorCode
    http_status: int
    exit_code: int
    title: str
    hint: str


@cache
def catalogue() -> dict[ErrorCode, ErrorInfo]:
    """Every code with its facts, from events/errors.json."""
    rows = json.loads((files("octollm.events") / "errors.json").read_text())
    return {ErrorCode(row["code"]): ErrorInfo(**(row | {"code": ErrorCode(row["code"])})) for row in rows}


class OctoError(Exception):
    """An error with a code of the list. `errors`: (JSON pointer, message) of each broken field."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        task_id: str | None = None,
        errors: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.task_id = task_id
        self.errors = errors

    @property
    def info(self) -> ErrorInfo:
        """What is fixed for the code."""
        return catalogue()[self.code]


def problem(error: OctoError) -> dict[str, Any]:
    """The body of an application/problem+json answer (RFC 9457)."""
    info = error.info
    body: dict[str, Any] = {
        "type": f"urn:octollm:error:{error.code.value}",
        "title": info.title,
        "status": info.http_status,
        "detail": error.message,
        "code": error.code.value,
        "hint": info.hint,
    }
    if error.task_id is not None:
        body["task_id"] = error.task_id
    if error.errors:
        body["errors"] = [{"pointer": pointer, "message": message} for pointer, message in error.errors]
    return body
