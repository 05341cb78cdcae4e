"""Whether the chains of the log, or of an export, hold, and its receipts; told for people and for machines."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from octollm.cli import receipts
from octollm.cli.failure import Exit, Failure
from octollm.cli.log_export import recorded, stored
from octollm.cli.terminal import Terminal, printable
from octollm.events.chain import Chains, Code, Finding, Message, TaskReport
from octollm.events.config import NatsSettings
from octollm.events.receipt import PublicKeys, Receipts
from octollm.events.receipt import TaskReport as ReceiptReport

UNSIGNED = (
    "chain intact, unsigned: a cut tail, a changed last event or a wholly rewritten chain can't be seen; "
    "compare the last sequence and hash with a copy kept elsewhere"
)
TOLD = 20
"""Findings of one task that people get to read; machines get them all."""

_WORDS = {
    Code.CHANGED: "is not what was written",
    Code.UNREADABLE: "has no valid envelope",
    Code.MISSING: "follows events that are gone",
    Code.INSERTED: "was inserted",
    Code.REORDERED: "is out of order",
    Code.FOREIGN: "does not belong to this task",
    Code.WRONG_VERSION: "has the wrong version",
    Code.BROKEN_START: "is no beginning of a task",
    Code.AFTER_END: "comes after the task's end",
}
_WITNESS = {
    Code.CHANGED: "#{} follows it and names another hash",
    Code.MISSING: "the last one before the gap is #{}",
    Code.REORDERED: "see #{}",
    Code.WRONG_VERSION: "it follows #{}",
    Code.AFTER_END: "#{} ended the task",
}


NO_KEY = "receipts not verified: no public key is at hand; name it with --receipt-key (keys/receipt.pub of the stack)"


class Checked(msgspec.Struct, frozen=True):
    """What holds of one task: its chain, and its receipts where there is a key to verify them with."""

    chain: TaskReport
    receipts: ReceiptReport | None

    @property
    def holds(self) -> bool:
        """Nothing was found in either."""
        return self.chain.intact and not (self.receipts and self.receipts.findings)


class Check:
    """Chains and receipts of all tasks, taken message by message."""

    def __init__(self, keys: PublicKeys | None) -> None:
        self.has_keys = keys is not None
        self._chains = Chains()
        self._receipts = Receipts(keys) if keys is not None else None

    def take(self, message: Message) -> None:
        """The next stored message."""
        self._chains.take(message)
        if self._receipts is not None:
            self._receipts.take(message)

    def tasks(self) -> Iterator[Checked]:
        """Task by task, in the order of their first messages."""
        if self._receipts is None:
            return (Checked(chain, None) for chain in self._chains.reports())
        return (Checked(*both) for both in zip(self._chains.reports(), self._receipts.reports(), strict=True))


def verify_log(terminal: Terminal, nats: NatsSettings, task_id: str | None, keys: PublicKeys | None) -> int:
    """Checks one task or, for None, the whole log as it is now; the exit code. Raises Failure."""
    check = asyncio.run(_read(terminal, nats, task_id, Check(keys)))
    if task_id is None:
        return _tell_all(terminal, check)
    return _tell_one(terminal, next(check.tasks(), None), task_id, "the log")


def verify_file(terminal: Terminal, path: Path, task: str | None, keys: PublicKeys | None) -> int:
    """Checks an export: one of its tasks, by a beginning of its id, or all; the exit code. Raises Failure."""
    check = Check(keys)
    for message in recorded(path):
        check.take(message)
    if task is None:
        return _tell_all(terminal, check)
    found = [checked for checked in check.tasks() if checked.chain.task_id.startswith(task.strip().lower())]
    if len(found) > 1:
        ids = ", ".join(printable(checked.chain.task_id) for checked in found[:5])
        raise Failure.usage(f"{len(found)} tasks in {path} begin with {task}: {ids}", "give more of the id")
    return _tell_one(terminal, next(iter(found), None), task, str(path))


async def _read(terminal: Terminal, nats: NatsSettings, task_id: str | None, check: Check) -> Check:
    """Messages pass through one by one: none is kept."""
    with _progress(terminal) as advance:
        async with contextlib.aclosing(stored(nats, f"*.*.{task_id}" if task_id else ">")) as messages:
            async for message, behind in messages:
                check.take(message)
                advance(behind)
    return check


@contextlib.contextmanager
def _progress(terminal: Terminal) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; it is told how many messages are still to come."""
    if terminal.as_json or not terminal.err.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        task = progress.add_task("", total=None)
        read = 0

        def advance(behind: int) -> None:
            nonlocal read
            read += 1
            progress.update(task, completed=read, total=read + behind)

        yield advance


def _tell_one(terminal: Terminal, checked: Checked | None, task: str, where: str) -> int:
    if checked is None:
        # Not the code's usual exit code, which here means a broken chain.
        hint = "`octo ls` lists the tasks"
        message = f"{where} holds nothing about this task"
        raise Failure(message, hint, Exit.USAGE, code="NOT_FOUND", task_id=task)
    if terminal.as_json:
        terminal.document(_document(checked))
        return _exit(checked.holds)
    _tell(terminal, checked)
    if checked.chain.intact:
        terminal.print(f"  {UNSIGNED}")
    if checked.receipts is None:
        terminal.print(f"  {NO_KEY}")
    elif checked.receipts.verified:
        terminal.print(f"  {receipts.LIMITS}")
    return _exit(checked.holds)


def _tell_all(terminal: Terminal, check: Check) -> int:
    tasks = events = broken = results = verified = 0
    holds = True
    for checked in check.tasks():
        tasks, events, broken = tasks + 1, events + checked.chain.events, broken + (not checked.chain.intact)
        holds = holds and checked.holds
        if checked.receipts:
            results, verified = results + checked.receipts.results, verified + checked.receipts.verified
        if terminal.as_json:
            terminal.line(_document(checked))
        else:
            _tell(terminal, checked)
    if terminal.as_json:
        return _exit(holds)
    if not tasks:
        terminal.note("there is no event to verify")
        return _exit(holds)
    if broken:
        terminal.print(f"{broken} of {tasks} task(s) broken, {events} event(s) checked")
    else:
        terminal.print(f"{tasks} task(s), {events} event(s): {UNSIGNED}")
    terminal.print(f"receipts verified {verified} of {results}: {receipts.LIMITS}" if check.has_keys else NO_KEY)
    return _exit(holds)


def _tell(terminal: Terminal, checked: Checked) -> None:
    terminal.print(_head(checked.chain))
    if not checked.chain.intact:
        terminal.print(_findings(checked.chain))
    if checked.receipts and checked.receipts.results:
        terminal.print(receipts.told(checked.receipts))


def _exit(holds: bool) -> int:
    return Exit.DONE if holds else Exit.FAILED


def _document(checked: Checked) -> dict[str, Any]:
    """The report for machines; `signed` says what an intact chain does not prove."""
    document: dict[str, Any] = msgspec.to_builtins(checked.chain)
    return document | {"signed": False, "receipts": receipts.document(checked.receipts)}


def _head(report: TaskReport) -> Text:
    """`✓ <task> 9 events, ended, last #23 version 9 hash …`."""
    text = Text()
    text.append("✓ " if report.intact else "✗ ", style="bold green" if report.intact else "bold red")
    text.append(printable(report.task_id), style="cyan")
    text.append(f"  {report.events} event(s), {'ended' if report.ended else 'not ended'}: ")
    if report.intact:
        text.append("chain intact, unsigned")
        text.append(f"  last #{report.last.seq} version {report.last.version} {report.last.hash}", style="dim")
    else:
        text.append(f"chain broken in {len(report.findings)} place(s)", style="bold")
    return text


def _findings(report: TaskReport) -> Text:
    """What is wrong, event by event, and what to do."""
    text = Text()
    for finding in report.findings[:TOLD]:
        text.append(f"  #{finding.seq} ", style="bold")
        text.append(f"{finding.code}", style="red")
        text.append(f"  {_words(finding, report.last.seq)}\n")
    if (more := len(report.findings) - TOLD) > 0:
        text.append(f"  and {more} more; --json tells them all\n")
    if report.unexamined:
        text.append(f"  {report.unexamined} later event(s) of this task were not examined\n")
    first = min(finding.seq for finding in report.findings)
    text.append(
        f"  → trust nothing of this task from #{first} on; compare it with an earlier `octo export` or a backup of the "
        "broker's store, and do its work anew under a new id",
        style="cyan",
    )
    return text


def _words(finding: Finding, last: int) -> str:
    said = "no version" if finding.version is None else f"version {finding.version}"
    parts = [f"the event ({said}) {_WORDS[finding.code]}"]
    if finding.detail:
        parts.append(finding.detail)
    if finding.witness is not None and (witness := _WITNESS.get(finding.code)):
        parts.append(witness.format(finding.witness))
        if finding.code is Code.CHANGED and finding.witness == last:
            parts.append(f"or #{last} itself was changed: nothing follows it that would tell")
    return ": ".join((parts[0], "; ".join(parts[1:]))) if parts[1:] else parts[0]
