"""What ends a command early, and the exit codes of `octo`."""

from enum import IntEnum
from typing import Any, Self


class Exit(IntEnum):
    """Exit codes; events/errors.json gives each error code one of them. 75 is EX_TEMPFAIL (sysexits.h)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    WAITING = 4
    BUDGET = 5
    CANCELLED = 6
    INFRASTRUCTURE = 75
    INTERRUPTED = 130


class Failure(Exception):
    """A command can't do what was asked: what happened, to which task, what to do next, and the exit code.

    `code` is one of the error codes where there is one; `errors` are (JSON pointer, message) of each broken field.
    """

    def __init__(
        self,
        message: str,
        hint: str,
        exit_code: int,
        *,
        code: str | None = None,
        task_id: str | None = None,
        errors: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.code = code
        self.task_id = task_id
        self.errors = errors

    @classmethod
    def usage(cls, message: str, hint: str) -> Self:
        """The command line, or a file that it names, can't be used."""
        return cls(message, hint, Exit.USAGE)

    @classmethod
    def unreachable(cls, what: str, url: str, reason: str) -> Self:
        """Nothing answers where the stack should be. `url` must hold no password."""
        return cls(
            f"{what} can't be reached at {url} ({reason})",
            "start the stack with `octo up`, or say where it runs (OCTO_STACK__API_URL, OCTO_NATS__URL)",
            Exit.INFRASTRUCTURE,
        )

    @classmethod
    def of_code(
        cls, code: str, message: str, *, task_id: str | None = None, errors: tuple[tuple[str, str], ...] = ()
    ) -> Self:
        """An error of the list; hint and exit code are the list's."""
        hint, exit_code = facts(code)
        return cls(message, hint, exit_code, code=code, task_id=task_id, errors=errors)

    def document(self) -> dict[str, Any]:
        """The failure for machines: the members of an RFC 9457 problem that make sense here, and the exit code."""
        body: dict[str, Any] = {"code": self.code, "detail": self.message, "hint": self.hint, "task_id": self.task_id}
        body["errors"] = [{"pointer": pointer, "message": message} for pointer, message in self.errors]
        return {"error": body | {"exit_code": int(self.exit_code)}}


def facts(code: str) -> tuple[str, int]:
    """Hint and exit code of an error code; for a code that this version doesn't know, those of INTERNAL_ERROR."""
    from octollm.events.carrier import ErrorCode
    from octollm.events.errors import catalogue

    known = ErrorCode(code) if code in ErrorCode.__members__ else ErrorCode.INTERNAL_ERROR
    info = catalogue()[known]
    return info.hint, info.exit_code
