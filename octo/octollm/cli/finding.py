"""What a check of `octo doctor` found."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """`note`: nothing is wrong, and somebody may still want to know."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and how to put it right where it is wrong."""

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {"name": self.name, "verdict": self.verdict.value, "detail": self.detail, "fix": self.fix}


def ok(name: str, detail: str) -> Finding:
    """As it should be."""
    return Finding(name, Verdict.OK, detail)


def note(name: str, detail: str, fix: str = "") -> Finding:
    """Not wrong."""
    return Finding(name, Verdict.NOTE, detail, fix)


def wrong(name: str, detail: str, fix: str) -> Finding:
    """Not as it should be."""
    return Finding(name, Verdict.WRONG, detail, fix)
