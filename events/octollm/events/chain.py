"""Does what is stored hold together? Checks the hash chain of each task over exported messages (events/README.md).

Pure and incremental: a log of any size passes through in bounded memory per task. The crate's `chain` gives the same
report on the same messages. The chain carries no signature: a cut tail, a changed last event, and a chain that somebody
wrote anew from some event on can't be seen.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from octollm.events.envelope import NO_HASH, TERMINAL, event_hash

EXAMINED = 1024
"""Events of one task that are compared with one another. The intact beginning of a longer chain is forgotten but for
its end; of a broken chain, what comes beyond is counted and not examined."""

_FIRST = ("task.received", "task.rejected")
_KEPT = 2
"""An ended or long chain keeps its last event and the one before: whoever forks it follows one of them."""

_REQUIRED = (
    *("ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-subject"),
    *("ce-causationid", "ce-taskversion", "ce-prevhash"),
)
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stored message, a line of an export: `body` is base64 there, `stored_at` the broker's time (RFC 3339)."""

    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    subject: str
    headers: dict[str, str]
    body: bytes
    stored_at: str


class Code(StrEnum):
    """What is wrong with an event. `witness` of a finding is the event named in brackets."""

    CHANGED = "CHANGED"
    """It is not what was written [the event that follows it and names another hash]."""
    UNREADABLE = "UNREADABLE"
    """Its envelope is none: a header is missing or has the wrong form."""
    MISSING = "MISSING"
    """Events before it were removed [the last event before the gap]."""
    INSERTED = "INSERTED"
    """It does not belong here, though it names an event of the chain [the event that takes its place]."""
    REORDERED = "REORDERED"
    """It is stored before the event that it follows [that event], or its sequence does not rise [the one before]."""
    FOREIGN = "FOREIGN"
    """It belongs to another chain: it names another task or an event that is not in this one."""
    WRONG_VERSION = "WRONG_VERSION"
    """It follows the event before it, but its version does not [that event]."""
    BROKEN_START = "BROKEN_START"
    """It is the first, but no beginning."""
    AFTER_END = "AFTER_END"
    """It comes after a terminal event [that event]."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the event at sequence `seq`; `version` is what it says, None where that is no number."""

    seq: int
    version: int | None
    code: Code
    witness: int | None
    detail: str


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """A task's last message: compare it with a record kept elsewhere, for nothing in the chain vouches for it."""

    seq: int
    version: int | None
    hash: str


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task's chain. `ended`: its last event is terminal. `unexamined`: events beyond EXAMINED of a broken chain."""

    task_id: str
    events: int
    intact: bool
    ended: bool
    last: Last
    findings: tuple[Finding, ...]
    unexamined: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Every task in the order of its first message."""

    intact: bool
    events: int
    tasks: tuple[TaskReport, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """What the chain needs of a message. `prev` is "" and `version` None where the envelope doesn't say."""

    seq: int
    version: int | None
    prev: str
    hash: str
    kind: str
    stranger: bool
    unreadable: str

    @property
    def terminal(self) -> bool:
        """Nothing may follow."""
        return self.kind in TERMINAL


_START = Link(seq=0, version=0, prev="", hash=NO_HASH, kind="", stranger=False, unreadable="")


def verify(messages: Iterable[Message]) -> Report:
    """Checks every task among the messages, which are in the order in which they are stored."""
    chains = Chains()
    for message in messages:
        chains.take(message)
    tasks = tuple(chains.reports())
    return Report(intact=all(task.intact for task in tasks), events=sum(task.events for task in tasks), tasks=tasks)


class Chains:
    """The chains of all tasks, taken message by message."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def take(self, message: Message) -> None:
        """The next stored message."""
        task_id = message.subject.rpartition(".")[2]
        if (chain := self._chains.get(task_id)) is None:
            chain = self._chains[task_id] = Chain(task_id)
        chain.take(message)

    def reports(self) -> Iterator[TaskReport]:
        """What holds so far, task by task in the order of their first messages."""
        return (chain.report() for chain in self._chains.values())


class Chain:
    """One task's chain, taken message by message."""

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self._links = [_START]
        self._last = _START
        self._intact = True
        self._events = 0
        self._unexamined = 0

    def take(self, message: Message) -> None:
        """The next message whose subject ends in the task's id."""
        link = _link(self._task_id, message)
        self._intact = self._intact and _follows(self._last, link)
        self._last = link
        self._events += 1
        if len(self._links) > EXAMINED and not self._intact:
            self._unexamined += 1
            return
        self._links.append(link)
        if self._intact and (link.terminal or len(self._links) > EXAMINED):
            del self._links[:-_KEPT]

    def report(self) -> TaskReport:
        """What holds so far."""
        last = self._last
        return TaskReport(
            task_id=self._task_id,
            events=self._events,
            intact=self._intact,
            ended=last.terminal,
            last=Last(seq=last.seq, version=last.version, hash=last.hash),
            findings=() if self._intact else tuple(_Diagnosis(self._links).findings()),
            unexamined=self._unexamined,
        )


def _link(task_id: str, message: Message) -> Link:
    headers = message.headers
    return Link(
        seq=message.seq,
        version=int(headers["ce-taskversion"]) if _NUMBER.fullmatch(headers.get("ce-taskversion", "")) else None,
        prev=headers.get("ce-prevhash", ""),
        hash=event_hash(message.subject, headers, message.body),
        kind=message.subject.rpartition(".")[0],
        stranger=headers.get("ce-subject", task_id) != task_id,
        unreadable=_unreadable(message.subject, headers),
    )


def _unreadable(subject: str, headers: Mapping[str, str]) -> str:
    """Why the envelope can't be read; "" where it can."""
    for name in _REQUIRED:
        if name not in headers:
            return f"header {name} is missing"
    tokens = subject.split(".")
    if len(tokens) != 3 or not all(tokens):
        return "the subject is not <entity>.<fact>.<task id>"
    prefix = f"octollm.{tokens[0]}.{tokens[1]}.v"
    if headers["ce-specversion"] != "1.0":
        return "ce-specversion is not 1.0"
    if not headers["ce-type"].startswith(prefix) or not _NUMBER.fullmatch(headers["ce-type"][len(prefix) :]):
        return "ce-type does not fit the subject"
    if not _NUMBER.fullmatch(headers["ce-taskversion"]):
        return "ce-taskversion is no version"
    if not _HASH.fullmatch(headers["ce-prevhash"]):
        return "ce-prevhash is no hash"
    return ""


def _follows(before: Link, link: Link) -> bool:
    """All is as it should be from `before`, which is, to `link`."""
    return (
        link.prev == before.hash
        and link.version == (before.version or 0) + 1
        and link.seq > before.seq
        and not (link.unreadable or link.stranger or before.terminal)
        and (before is not _START or link.kind in _FIRST)
    )


class _Diagnosis:
    """Puts names to what is wrong in links of which the first is known to be good (or stands for the beginning).

    One finding at most for each event. An event whose place is explained by another's finding gets none: the hash of
    a changed event fits nothing, so its follower hangs in the air without being at fault.
    """

    def __init__(self, links: list[Link]) -> None:
        self._links = links
        self._found: dict[int, Finding] = {}
        # Events that are not part of the chain, and what follows them.
        self._off: set[int] = set()
        places: dict[str, int] = {}
        self._copies: dict[int, int] = {}
        for at, link in enumerate(links):
            if places.setdefault(link.hash, at) != at:
                self._copies[at] = places[link.hash]
        self._parent = [None, *(places.get(link.prev) for link in links[1:])]
        self._children: list[list[int]] = [[] for _ in links]
        for at, parent in enumerate(self._parent):
            if parent is not None:
                self._children[parent].append(at)

    def findings(self) -> list[Finding]:
        """In stored order."""
        rules: tuple[Callable[[int], None], ...] = (
            self._envelope,
            self._place,
            self._hanging,
            self._sequence,
        )
        for rule in rules:
            for at in range(1, len(self._links)):
                rule(at)
        self._after_end()
        return [self._found[at] for at in sorted(self._found)]

    def _find(self, at: int, code: Code, witness: int | None = None, detail: str = "") -> None:
        link = self._links[at]
        seq = None if witness is None or self._links[witness] is _START else self._links[witness].seq
        self._found.setdefault(at, Finding(seq=link.seq, version=link.version, code=code, witness=seq, detail=detail))

    def _expel(self, at: int, code: Code, witness: int | None = None, detail: str = "") -> None:
        self._find(at, code, witness, detail)
        self._off.add(at)

    def _envelope(self, at: int) -> None:
        """What the event says of itself."""
        link = self._links[at]
        if at in self._copies:
            self._expel(at, Code.INSERTED, self._copies[at], "a copy")
        elif link.unreadable:
            self._find(at, Code.UNREADABLE, None, link.unreadable)
        elif link.stranger:
            # What stands in its place with the right predecessor is an event of this chain whose header was changed.
            if self._parent[at] == at - 1 and link.version == (self._links[at - 1].version or 0) + 1:
                self._find(at, Code.CHANGED, None, "ce-subject names another task")
            else:
                self._expel(at, Code.FOREIGN, None, "ce-subject names another task")

    def _place(self, at: int) -> None:
        """An event whose predecessor is known."""
        parent = self._parent[at]
        if parent is None or at in self._off:
            return
        link, before = self._links[at], self._links[parent]
        if parent in self._off:
            self._off.add(at)
        elif parent > at:
            self._find(at, Code.REORDERED, parent, "stored before the event that it follows")
        elif parent < at - 1:
            self._fork(at, parent)
        elif before is _START and (link.kind not in _FIRST or link.version != 1):
            self._find(at, Code.BROKEN_START, None, "a task begins with task.received or task.rejected, version 1")
        elif link.version != (before.version or 0) + 1:
            self._find(at, Code.WRONG_VERSION, parent, f"version {(before.version or 0) + 1} follows")

    def _fork(self, at: int, parent: int) -> None:
        """The event passes over others to follow an earlier one: either they or it are out of place."""
        mine = self._descendants(at)
        line = self._ancestors(at)
        between = [x for x in range(parent + 1, at) if x not in self._off and x not in mine and x not in line]
        rivals = self._descendants(parent).intersection(between)
        for x in between:
            if x not in rivals:
                self._expel(x, Code.FOREIGN if self._parent[x] is None else Code.INSERTED, at, "nothing follows it")
        if not rivals:
            return
        if len(rivals) > len(mine):
            if not any(self._links[x].terminal for x in rivals):
                self._expel(at, Code.INSERTED, min(rivals), "another event follows the same one and is followed")
        elif len(rivals) < len(mine) or not any(self._links[x].terminal for x in rivals):
            for x in sorted(rivals):
                self._expel(x, Code.INSERTED, at, "another event follows the same one")

    def _hanging(self, at: int) -> None:
        """An event whose predecessor is not there: it was changed or removed, or the event is not of this chain."""
        parent = self._parent[at]
        if at in self._off or at in self._found or parent is not None:
            if parent in self._off:
                self._off.add(at)
            return
        link = self._links[at]
        before = next(x for x in range(at - 1, -1, -1) if x not in self._off)
        if any(self._links[x].terminal and x not in self._off for x in range(at)):
            return  # Found as an event after the end.
        if self._links[before] is _START:
            self._find(at, Code.BROKEN_START, None, "the first event names one before it")
            return
        expected = {(self._links[before].version or 0) + 1, self._counted(before) + 1}
        version = link.version or 0
        if version in expected:
            if before not in self._found:
                self._changed(at, before)
        elif version > max(expected):
            gap = f"versions {max(expected)} to {version - 1}"
            self._find(at, Code.MISSING, before, gap)
        else:
            self._expel(at, Code.FOREIGN, None, "names an event that is not in this chain")

    def _changed(self, at: int, before: int) -> None:
        """`at` and the one before contradict each other: the one that its follower contradicts too was changed."""
        follower = at + 1
        if (
            follower < len(self._links)
            and self._parent[follower] is None
            and not self._children[at]
            and self._links[follower].version == (self._links[at].version or 0) + 1
        ):
            self._find(at, Code.CHANGED, follower)
        else:
            self._find(before, Code.CHANGED, at)

    def _sequence(self, at: int) -> None:
        """Sequences rise."""
        if self._links[at].seq <= self._links[at - 1].seq and not self._found.keys() & {at, at - 1}:
            self._find(at, Code.REORDERED, at - 1, "its sequence does not rise")

    def _after_end(self) -> None:
        """The first terminal event of the chain is its last event."""
        ends = (at for at, link in enumerate(self._links) if link.terminal and at not in self._off)
        if (end := next(ends, None)) is None:
            return
        for at in range(end + 1, len(self._links)):
            if at not in self._off:
                self._find(at, Code.AFTER_END, end)

    def _counted(self, at: int) -> int:
        """The version that the event has by its place."""
        steps = 0
        while (parent := self._parent[at]) is not None and parent < at:
            at, steps = parent, steps + 1
        return (self._links[at].version or 0) + steps

    def _ancestors(self, at: int) -> set[int]:
        line: set[int] = set()
        parent = self._parent[at]
        while parent is not None and parent not in line:
            line.add(parent)
            parent = self._parent[parent]
        return line

    def _descendants(self, at: int) -> set[int]:
        """With the event itself."""
        found: set[int] = set()
        waiting = [at]
        while waiting:
            if (one := waiting.pop()) not in found:
                found.add(one)
                waiting.extend(self._children[one])
        return found
