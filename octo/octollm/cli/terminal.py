"""What a command says: one document (or lines) of JSON for machines, text for people; errors and notes on stderr."""

import json
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from octollm.cli.failure import Failure

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 200
"""Columns where there is no terminal: a pipe shouldn't cut what a terminal would wrap."""

_PICTURES = {number: 0x2400 + number for number in range(32) if chr(number) not in "\n\t"} | {127: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def printable(text: str) -> str:
    """Text from elsewhere, safe for a terminal: control characters (C0, C1, DEL) are shown, not obeyed."""
    return text.translate(_PICTURES)


def shortened(text: str, limit: int) -> str:
    """One line of at most `limit` characters, safe for a terminal."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


class Terminal:
    """The two streams of one command. Colour only on a terminal, and not with NO_COLOR (no-color.org)."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def out(self) -> "Console":
        """Results."""
        return _console(stderr=False)

    @cached_property
    def err(self) -> "Console":
        """Errors and notes."""
        return _console(stderr=True)

    @property
    def interactive(self) -> bool:
        """Whether a person looks at results as they come, so that they may be redrawn."""
        return not self.as_json and self.out.is_terminal

    def document(self, value: Any) -> None:
        """The command's one result, for machines; indented where a person may read it."""
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
        sys.stdout.flush()

    def line(self, value: Any) -> None:
        """One result of a stream, for machines (JSON lines)."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def print(self, what: "RenderableType", end: str = "\n") -> None:
        """A result, for people."""
        self.out.print(what, end=end, soft_wrap=True)

    def note(self, text: str) -> None:
        """Something a person should know that is no result; machines don't get it."""
        if not self.as_json:
            self.err.print(printable(text), style="dim", soft_wrap=True)

    def failure(self, failure: Failure) -> None:
        """Why the command ends: a document on stdout for machines, a few lines on stderr for people."""
        if self.as_json:
            self.line(failure.document())
            return
        from rich.text import Text

        head = Text()
        head.append("✗ ", style="bold red")
        if failure.code:
            head.append(f"{failure.code}  ", style="bold red")
        if failure.task_id and failure.task_id not in failure.message:
            head.append(f"task {failure.task_id}: ", style="bold")
        head.append(printable(failure.message))
        self.err.print(head, soft_wrap=True)
        for pointer, message in failure.errors:
            self.err.print(f"  {printable(pointer) or '/'}: {printable(message)}", soft_wrap=True)
        self.err.print(Text(f"  → {failure.hint}", style="cyan"), soft_wrap=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # Goals and outputs come from elsewhere: "[red]" in them is text, and "[EMAIL_1]" a placeholder.
    return Console(
        file=stream, markup=False, emoji=False, highlight=False, width=None if stream.isatty() else PIPED_WIDTH
    )
