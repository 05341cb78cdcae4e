"""What the executor's receipts say about results; told for people and for machines."""

import hashlib
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from octollm.cli.failure import Exit, Failure
from octollm.cli.log_export import STDIN
from octollm.cli.terminal import Terminal, printable
from octollm.events.canonical import canonical
from octollm.events.carrier import ReceiptStatement
from octollm.events.receipt import MEMBER, Code, KeyUnusable, PublicKeys, TaskReport, Untrue, opened, result_digest

LIMITS = (
    "whoever holds the executor's key has vouched for each; who holds it can sign anything, and programs share the "
    "host's kernel"
)
TOLD = 20
"""Findings of one task that people get to read; machines get them all."""

LARGEST = 128 << 20
"""Bytes of an answer: 64 MiB of artifacts as base64, and what was printed."""

_PUBLIC = Path("keys", "receipt.pub")
"""Where a data directory has the public keys: the stack's, which `octo exec` shares or makes."""

_WORDS = {
    Code.MISSING_RECEIPT: "has no receipt",
    Code.MALFORMED: "has a receipt that is none",
    Code.UNKNOWN_KEY: "has a receipt of a key that is not at hand",
    Code.BAD_SIGNATURE: "has a receipt that its key has not signed",
    Code.OTHER_RESULT: "has the receipt of another result",
    Code.ALTERED: "is not what was signed",
    Code.OTHER_DISPATCH: "has a receipt that answers another dispatch",
    Code.OTHER_ACTION: "has a receipt for another action than was dispatched",
    Code.BROKEN_CHAIN: "has a receipt that does not follow the task's receipt before it",
}


def public_keys(named: list[Path], directory: Path) -> PublicKeys | None:
    """Those named, else those of the data directory; None where it has none. Raises Failure."""
    return _keys(named or [path for path in [directory / _PUBLIC] if path.exists()])


def verify_answer(terminal: Terminal, path: Path, keys: PublicKeys | None) -> int:
    """Checks a receipt, or a result with one, as `octo exec` prints it; the exit code. Raises Failure."""
    if keys is None:
        hint = "name the public key with --receipt-key (octo exec keeps it in .octo/keys/receipt.pub)"
        raise Failure.usage(f"no key is at hand to verify {path} with", hint)
    body = _read(path).strip()
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict) or not (MEMBER in document or "payload" in document):
        raise Failure.usage(f"{path} holds no receipt", "name an answer of `octo exec`, or the receipt of one")
    envelope = document.get(MEMBER, document)
    try:
        statement = opened(envelope, keys)
        as_written = _as_written(body, document, statement) if MEMBER in document else None
    except Untrue as untrue:
        _tell_untrue(terminal, untrue)
        return Exit.FAILED
    _tell_true(terminal, statement, envelope["signatures"][0]["keyid"], as_written)
    return Exit.DONE


def _as_written(body: bytes, document: dict[str, Any], statement: ReceiptStatement) -> bool:
    """Whether the result has the bytes that were signed, or only their content; raises Untrue."""
    tail = b',"%b":%b}' % (MEMBER.encode(), canonical(document[MEMBER]))
    signed = statement.subject[0].digest.sha256
    if body.endswith(tail) and hashlib.sha256(body.removesuffix(tail) + b"}").hexdigest() == signed:
        return True
    try:
        same = result_digest(document) == statement.predicate.result.canonical
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise Untrue(Code.ALTERED)
    return False


def _keys(paths: list[Path]) -> PublicKeys | None:
    try:
        keys = PublicKeys.load(paths)
    except KeyUnusable as error:
        raise Failure.usage(str(error), "name a file of public keys (keys/receipt.pub of a stack)") from error
    if paths and not keys:
        raise Failure.usage(f"{paths[0]} holds no key", "name a file of public keys (keys/receipt.pub of a stack)")
    return keys if paths else None


def _read(path: Path) -> bytes:
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise Failure.usage(f"{path} can't be read: {error.strerror}", "name a file with a receipt") from error
    if len(text) > LARGEST:
        raise Failure.usage(f"{path} has more than {LARGEST} bytes", "name an answer of `octo exec`")
    return text


def _tell_untrue(terminal: Terminal, untrue: Untrue) -> None:
    if terminal.as_json:
        terminal.document({"verified": False, "finding": {"code": untrue.code, "detail": untrue.detail}})
        return
    text = Text()
    text.append("✗ ", style="bold red")
    text.append(f"{untrue.code}", style="red")
    text.append(f"  {_said('the result', untrue.code, untrue.detail)}\n")
    text.append("  → believe nothing of it; run it again, or ask for the answer as it was printed", style="cyan")
    terminal.print(text)


def _tell_true(terminal: Terminal, statement: ReceiptStatement, key: str, as_written: bool | None) -> None:
    name, receipt = statement.subject[0].name, statement.predicate
    if terminal.as_json:
        document = {"verified": True, "finding": None, "key": key, "as_written": as_written}
        terminal.document(document | {"statement": msgspec.to_builtins(statement)})
        return
    covered = {
        None: "the receipt alone: nothing says what became of the result",
        True: "the result is as it was signed, byte by byte",
        False: "the result says what was signed, formatted anew",
    }[as_written]
    ending = "ok" if receipt.result.code is msgspec.UNSET else receipt.result.code.value
    text = Text()
    text.append("✓ ", style="bold green")
    text.append(printable(name), style="cyan")
    text.append(f"  receipt verified, key {key}: {covered}\n")
    text.append(f"  {receipt.action.kind}, {ending}, {'started' if receipt.result.started else 'nothing was started'}")
    text.append(f", {receipt.result.ended_at}, policy {receipt.policy.digest[:16]}")
    text.append(" bypassed\n" if receipt.policy.bypassed else "\n", style="yellow")
    text.append(f"  {LIMITS}", style="dim")
    terminal.print(text)


def document(report: TaskReport | None) -> dict[str, Any] | None:
    """One task's receipts for machines; None where no key was at hand."""
    if report is None:
        return None
    members: dict[str, Any] = msgspec.to_builtins(report)
    del members["task_id"]
    return members


def told(report: TaskReport) -> Text:
    """`receipts verified 3 of 3`, and what is wrong, event by event."""
    text = Text(f"  receipts verified {report.verified} of {report.results}")
    for finding in report.findings[:TOLD]:
        text.append(f"\n  #{finding.seq} ", style="bold")
        text.append(f"{finding.code}", style="red")
        text.append(f"  {_said('the result', finding.code, finding.detail)}")
    if (more := len(report.findings) - TOLD) > 0:
        text.append(f"\n  and {more} more; --json tells them all")
    if report.findings:
        advice = "\n  → believe none of these results; if a key was replaced, name the old one too with --receipt-key"
        text.append(advice, style="cyan")
    return text


def _said(what: str, code: Code, detail: str) -> str:
    return f"{what} {_WORDS[code]}" + (f": {printable(detail)}" if detail else "")
