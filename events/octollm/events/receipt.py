"""Are the receipts of a log good? Verifies what the executor has signed about each result (docs/decisions/0014).

Pure and incremental, offline: nothing is needed but the messages and the public keys. The executor's `receipt` comes to
the same findings on the same messages. A good receipt shows: whoever holds the key has vouched for the result as it
stands, for the action that was dispatched, and in this order. It does not show that the chain of events is whole
(octollm.events.chain does), nor that a task's last result was not cut off; and whoever holds the private key, or the
kernel under the executor, can have it sign anything.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import msgspec

from octollm.events import schema
from octollm.events.canonical import canonical
from octollm.events.carrier import Receipt, ReceiptEnvelope, ReceiptStatement
from octollm.events.chain import Message
from octollm.events.envelope import TERMINAL, event_hash

PRIVATE_PREFIX = "ed25519-private/"
PUBLIC_PREFIX = "ed25519/"
KEY_BYTES = 32
MEMBER = "receipt"
"""The name of the member that carries a receipt, the last of its result."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ARM = "executor"
"""The arm whose results have receipts."""

_ID_BYTES = 8
_SIGNATURE_BYTES = 64
_RESULTS = ("step.executed", "step.failed")
_ORCHESTRATOR = "/octollm/orchestrator"
"""Who writes `step.failed` for an arm that is silent; nothing was executed that a receipt could tell of."""


class KeyUnusable(ValueError):
    """A key, or a file of keys, that can't be used; never says what a private key is."""


class PublicKeys:
    """What verifies receipts: any number of keys, so that a key can be replaced; a receipt's key id chooses."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """`texts`: `ed25519/` and 64 hexadecimal digits, each. Raises KeyUnusable."""
        self._keys = {key_id(key): key for key in map(_public_bytes, texts)}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Self:
        """The keys in files, one on a line; empty lines and those that begin with # are passed over.

        Raises KeyUnusable.
        """
        texts: list[str] = []
        for path in paths:
            try:
                lines = path.read_bytes().decode("ascii", errors="replace").splitlines()
            except OSError as error:
                raise KeyUnusable(f"{path} can't be read: {error.strerror}") from error
            found = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
            try:
                cls(found)
            except KeyUnusable as error:
                raise KeyUnusable(f"{path}: {error}") from None
            texts += found
        return cls(texts)

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> list[str]:
        """The keys' ids, sorted."""
        return sorted(self._keys)

    @property
    def texts(self) -> list[str]:
        """The keys as they stand in a file."""
        return [PUBLIC_PREFIX + key.hex() for key in self._keys.values()]

    def get(self, key: str) -> bytes | None:
        """The key of this id."""
        return self._keys.get(key)


def key_id(public: bytes) -> str:
    """Names a key: the first 8 bytes of its SHA-256, hexadecimal."""
    return hashlib.sha256(public).hexdigest()[: 2 * _ID_BYTES]


def public_key(private: str) -> str:
    """The public half of `ed25519-private/` and 64 hexadecimal digits; raises KeyUnusable."""
    from nacl.signing import SigningKey

    seed = _hex(private, PRIVATE_PREFIX)
    if seed is None:
        raise KeyUnusable(f"no private key ({PRIVATE_PREFIX} and 64 hexadecimal digits)")
    return PUBLIC_PREFIX + bytes(SigningKey(seed).verify_key).hex()


def _public_bytes(text: str) -> bytes:
    if (key := _hex(text, PUBLIC_PREFIX)) is None:
        raise KeyUnusable(f"no public key ({PUBLIC_PREFIX} and 64 hexadecimal digits)")
    return key


def _hex(text: str, prefix: str) -> bytes | None:
    try:
        found = bytes.fromhex(text.removeprefix(prefix))
    except ValueError:
        return None
    return found if text.startswith(prefix) and len(text) == len(prefix) + 2 * KEY_BYTES else None


class Code(StrEnum):
    """What is wrong with the receipt of a result."""

    MISSING_RECEIPT = "MISSING_RECEIPT"
    """The result of an executor's step has none."""
    MALFORMED = "MALFORMED"
    """Its form is not that of a receipt."""
    UNKNOWN_KEY = "UNKNOWN_KEY"
    """No key at hand is the one that it names."""
    BAD_SIGNATURE = "BAD_SIGNATURE"
    """The key that it names has not signed this."""
    OTHER_RESULT = "OTHER_RESULT"
    """It was made for another result."""
    ALTERED = "ALTERED"
    """It was made for this result, which is not what it was."""
    OTHER_DISPATCH = "OTHER_DISPATCH"
    """It answers another dispatch than the one on record, or one that is not on record."""
    OTHER_ACTION = "OTHER_ACTION"
    """It names another action than the dispatch."""
    BROKEN_CHAIN = "BROKEN_CHAIN"
    """It does not follow the task's receipt before it: one was removed, inserted or exchanged."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the receipt of the result at sequence `seq`; the first thing that is."""

    seq: int
    code: Code
    detail: str


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """The receipts of one task. `results`: those that have one or must have; `verified`: those whose receipts hold."""

    task_id: str
    results: int
    verified: int
    findings: tuple[Finding, ...]


class Untrue(Exception):
    """A receipt is not believed."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail


def verify(messages: Iterable[Message], keys: PublicKeys) -> list[TaskReport]:
    """Verifies every task among the messages, which are in the order in which they are stored."""
    receipts = Receipts(keys)
    for message in messages:
        receipts.take(message)
    return list(receipts.reports())


def opened(envelope: Any, keys: PublicKeys) -> ReceiptStatement:
    """What an envelope (plain JSON) holds whose signature is good; raises Untrue."""
    return _opened(_envelope(envelope), keys)


def result_digest(result: dict[str, Any]) -> str:
    """SHA-256 of a result's canonical form, without its receipt: a receipt's `result.canonical`."""
    return _sha256(canonical({name: value for name, value in result.items() if name != MEMBER}))


class Receipts:
    """The receipts of all tasks, taken message by message. Of a task its dispatches without a result are kept."""

    def __init__(self, keys: PublicKeys) -> None:
        self._keys = keys
        self._tasks: dict[str, _Task] = {}

    def take(self, message: Message) -> None:
        """The next stored message."""
        kind, _, task_id = message.subject.rpartition(".")
        if (task := self._tasks.get(task_id)) is None:
            task = self._tasks[task_id] = _Task(task_id, self._keys)
        task.take(kind, message)

    def reports(self) -> Iterator[TaskReport]:
        """What holds so far, task by task in the order of their first messages."""
        return (task.report() for task in self._tasks.values())


@dataclass(frozen=True, slots=True)
class _Dispatch:
    arm: str
    action: str
    hash: str


class _Task:
    def __init__(self, task_id: str, keys: PublicKeys) -> None:
        self._task_id = task_id
        self._keys = keys
        self._dispatches: dict[str, _Dispatch] = {}
        self._previous: str | None = None
        self._results = self._verified = 0
        self._findings: list[Finding] = []

    def report(self) -> TaskReport:
        return TaskReport(
            task_id=self._task_id,
            results=self._results,
            verified=self._verified,
            findings=tuple(self._findings),
        )

    def take(self, kind: str, message: Message) -> None:
        if kind == "step.dispatched":
            self._dispatched(message)
        elif kind in _RESULTS:
            self._result(kind, message)
        elif kind in TERMINAL:
            self._dispatches.clear()

    def _dispatched(self, message: Message) -> None:
        payload = _parsed(message.body)
        match payload:
            case {"step": {"arm": str() as arm, "action": action}} if "ce-id" in message.headers:
                try:
                    digest = _sha256(canonical(action))
                except RecursionError:
                    return  # no action that anybody has dispatched
                self._dispatches[message.headers["ce-id"]] = _Dispatch(
                    arm=arm,
                    action=digest,
                    hash=event_hash(message.subject, message.headers, message.body),
                )

    def _result(self, kind: str, message: Message) -> None:
        dispatch = self._dispatches.pop(message.headers.get("ce-causationid", ""), None)
        payload = _parsed(message.body)
        try:
            if isinstance(payload, dict) and MEMBER in payload:
                self._check(message, payload, dispatch)
            elif (kind == "step.failed" and message.headers.get("ce-source") == _ORCHESTRATOR) or (
                dispatch is not None and dispatch.arm != ARM
            ):
                return
            else:
                raise Untrue(Code.MISSING_RECEIPT)
        except Untrue as untrue:
            self._findings.append(Finding(seq=message.seq, code=untrue.code, detail=untrue.detail))
        else:
            self._verified += 1
        self._results += 1

    def _check(self, message: Message, payload: dict[str, Any], dispatch: _Dispatch | None) -> None:
        envelope = _envelope(payload[MEMBER])
        text = canonical(payload[MEMBER])
        before, self._previous = self._previous, _sha256(text)
        statement = _opened(envelope, self._keys)
        self._is_about(statement, payload)
        tail = b',"%b":%b}' % (MEMBER.encode(), text)
        body = message.body
        if not body.endswith(tail) or _sha256(body.removesuffix(tail) + b"}") != statement.subject[0].digest.sha256:
            raise Untrue(Code.ALTERED)
        self._answers(statement.predicate, dispatch)
        previous = statement.predicate.previous
        if previous is msgspec.UNSET and before is not None:
            raise Untrue(Code.BROKEN_CHAIN, "it says that it is the task's first")
        if previous is not msgspec.UNSET and before is None:
            raise Untrue(Code.BROKEN_CHAIN, "it names one before it, and none is on record")
        if previous is not msgspec.UNSET and previous != before:
            raise Untrue(Code.BROKEN_CHAIN, "it names another one than the one before it")

    def _is_about(self, statement: ReceiptStatement, payload: dict[str, Any]) -> None:
        attempt, name = statement.predicate.attempt, statement.subject[0].name
        about = payload.get("plan_version"), payload.get("step_id"), payload.get("attempt")
        if not (isinstance(about[0], int) and isinstance(about[1], str) and isinstance(about[2], int)):
            raise Untrue(Code.MALFORMED, "the result names no step")
        if (
            attempt is msgspec.UNSET
            or (attempt.task_id, attempt.plan_version, attempt.step_id, attempt.attempt) != (self._task_id, *about)
            or name != "/".join(map(str, (self._task_id, *about)))
        ):
            raise Untrue(Code.OTHER_RESULT, f"it is that of {name}")

    @staticmethod
    def _answers(receipt: Receipt, dispatch: _Dispatch | None) -> None:
        if dispatch is None:
            raise Untrue(Code.OTHER_DISPATCH, "the dispatch that it answers is not on record")
        if receipt.attempt is msgspec.UNSET or receipt.attempt.dispatch != dispatch.hash:
            raise Untrue(Code.OTHER_DISPATCH)
        if receipt.action.digest != dispatch.action:
            raise Untrue(Code.OTHER_ACTION)


def _envelope(value: Any) -> ReceiptEnvelope:
    try:
        return msgspec.convert(value, ReceiptEnvelope)
    except msgspec.ValidationError:
        raise Untrue(Code.MALFORMED, "it is no envelope with a signature") from None


def _opened(envelope: ReceiptEnvelope, keys: PublicKeys) -> ReceiptStatement:
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if len(envelope.signatures) != 1:
        raise Untrue(Code.MALFORMED, "the envelope needs one signature")
    if envelope.payloadType != PAYLOAD_TYPE:
        raise Untrue(Code.MALFORMED, "the envelope names another payload type")
    if (payload := _base64(envelope.payload)) is None:
        raise Untrue(Code.MALFORMED, "the payload is no base64")
    signature = envelope.signatures[0]
    if (key := keys.get(signature.keyid)) is None:
        raise Untrue(Code.UNKNOWN_KEY, f"key {signature.keyid}")
    signed = _base64(signature.sig)
    if signed is None or len(signed) != _SIGNATURE_BYTES:
        raise Untrue(Code.MALFORMED, "the signature is no base64 of 64 bytes")
    try:
        VerifyKey(key).verify(pre_authentication(payload), signed)
    except BadSignatureError:
        raise Untrue(Code.BAD_SIGNATURE) from None
    try:
        value = msgspec.json.decode(payload)
        schema.validate("receipt", value)
        if canonical(value) == payload:
            return msgspec.convert(value, ReceiptStatement)
    except (msgspec.DecodeError, schema.SchemaViolation, UnicodeDecodeError):
        pass
    raise Untrue(Code.MALFORMED, "what was signed has not a receipt's form")


def pre_authentication(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _base64(text: str) -> bytes | None:
    """None, too, for a text that another one stands for: the bits after the last byte must be 0."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return found if base64.b64encode(found).decode() == text else None


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
