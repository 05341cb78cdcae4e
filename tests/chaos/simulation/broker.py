"""A broker in memory with the semantics that were measured on the real one (events/README.md, Append and Read).

Three streams, durable pull consumers, schedules, direct gets, and the core subjects `log.>`. On one node the expected
sequence is checked before the message id; replicated, the id first, and an append that meets another in flight for the
same task is refused with 10164 (10158 where that other one has the same id).
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from octollm.events.envelope import Event, broker_time
from tests.chaos.simulation.faults import NONE, Faults
from tests.chaos.simulation.loop import VirtualLoop

EPOCH = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
"""When every run begins."""

_EPOCH_NS = int(EPOCH.timestamp()) * 1_000_000_000
_DUPLICATE_WINDOW_S = 120.0
_KEPT_HEADERS = ("ce-", "content-type", "Nats-Msg-Id")
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"

Reply = Callable[["Message"], None]


@dataclass(slots=True)
class Message:
    """As it travels, and as a client sees it."""

    subject: str
    headers: dict[str, str] | None
    data: bytes
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream. `at`: virtual seconds."""

    seq: int
    subject: str
    headers: dict[str, str]
    data: bytes
    at: float

    @property
    def time_ns(self) -> int:
        return _EPOCH_NS + round(self.at * 1e6) * 1000


@dataclass(slots=True)
class Progress:
    """What a consumer knows, and what a crash of the broker sets back."""

    cursor: int = 0
    pending: dict[int, int] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)

    def copy(self) -> "Progress":
        return Progress(self.cursor, dict(self.pending), list(self.again))


@dataclass(slots=True)
class Pulling:
    """A pull request that still waits for `left` messages."""

    deliver: Callable[[Message], bool]
    left: int
    until: float


class DurableConsumer:
    """At least once, to whoever pulls; `ack_wait` seconds for an answer."""

    def __init__(self, broker: "Broker", stream: "Stream", name: str, facts: tuple[str, ...], ack_wait: float) -> None:
        self.name = name
        self._broker = broker
        self._stream = stream
        self._facts = facts
        self._ack_wait = ack_wait
        self._progress = Progress()
        self._synced = Progress()
        self._synced_at = 0.0
        self._changed_at = 0.0
        self._due: dict[int, asyncio.TimerHandle] = {}
        self._pulling: list[Pulling] = []
        self._count = 0

    def pull(self, request: Pulling) -> None:
        self._pulling.append(request)
        self.pump()

    def pump(self) -> None:
        """Delivers what there is to those who ask."""
        if not self._broker.up:
            return
        now = self._broker.loop.now
        while (seq := self._next()) is not None:
            self._pulling = [pulling for pulling in self._pulling if pulling.left > 0 and pulling.until > now]
            if not self._pulling:
                return
            pulling = self._broker.rng.choice(self._pulling)
            stored = self._stream.messages.get(seq)
            self._change()
            progress = self._progress
            if progress.again and progress.again[0] == seq:
                progress.again.pop(0)
            else:
                progress.cursor = seq
            if stored is None:  # taken from a work queue
                progress.pending.pop(seq, None)
                continue
            progress.pending[seq] = progress.pending.get(seq, 0) + 1
            self._count += 1
            pulling.left -= 1
            reply = f"$JS.ACK.{self._stream.name}.{self.name}.{progress.pending[seq]}.{seq}.{self._count}"
            message = Message(stored.subject, stored.headers, stored.data, f"{reply}.{stored.time_ns}.0")
            self._wait_for_answer(seq, self._ack_wait)
            if not pulling.deliver(message):
                self._pulling.remove(pulling)

    def answer(self, seq: int, word: bytes) -> None:
        """What a client says of a delivery."""
        if seq not in self._progress.pending:
            return
        self._change()
        if word.startswith(b"+WPI"):
            self._wait_for_answer(seq, self._ack_wait)
        elif word.startswith(b"-NAK"):
            self._wait_for_answer(seq, json.loads(word[5:])["delay"] / 1e9)
        else:
            if seq in self._due:
                self._due.pop(seq).cancel()
            del self._progress.pending[seq]
            if seq in self._progress.again:
                self._progress.again.remove(seq)
            if self._stream.is_queue:
                self._stream.messages.pop(seq, None)

    def restart(self) -> None:
        """Comes back with what was on disk: younger deliveries and answers are forgotten."""
        if self._broker.loop.now - self._changed_at < self._broker.faults.unsynced_s and not self._broker.replicated:
            self._progress = self._synced.copy()
        self._pulling.clear()
        for handle in self._due.values():
            handle.cancel()
        self._due.clear()
        for seq in self._progress.pending:
            if seq not in self._progress.again:
                self._wait_for_answer(seq, self._ack_wait)

    @property
    def is_idle(self) -> bool:
        """Nothing to deliver, nothing to wait for."""
        return not self._progress.pending and self._next() is None

    def _next(self) -> int | None:
        if self._progress.again:
            return self._progress.again[0]
        for seq in range(self._progress.cursor + 1, self._stream.last + 1):
            stored = self._stream.messages.get(seq)
            if stored is not None and stored.subject.startswith(self._facts):
                return seq
            self._progress.cursor = seq
        return None

    def _wait_for_answer(self, seq: int, seconds: float) -> None:
        if seq in self._due:
            self._due[seq].cancel()
        self._due[seq] = self._broker.loop.call_later(seconds, self._deliver_again, seq)

    def _deliver_again(self, seq: int) -> None:
        if seq in self._progress.pending and seq not in self._progress.again:
            self._progress.again.append(seq)
            self.pump()

    def _change(self) -> None:
        """About to change: what was so for a while is on disk."""
        now = self._broker.loop.now
        if now - self._synced_at >= self._broker.faults.unsynced_s:
            self._synced = self._progress.copy()
            self._synced_at = now
        self._changed_at = now


class Stream:
    """Messages by sequence."""

    def __init__(self, name: str, *, is_queue: bool = False) -> None:
        self.name = name
        self.is_queue = is_queue
        self.messages: dict[int, Stored] = {}
        self.last = 0
        self.consumers: dict[str, DurableConsumer] = {}

    def store(self, message: Message, now: float) -> Stored:
        self.last += 1
        kept = {name: value for name, value in (message.headers or {}).items() if name.startswith(_KEPT_HEADERS)}
        stored = Stored(self.last, message.subject, kept, message.data, now)
        self.messages[self.last] = stored
        return stored


class Broker:
    """The server. `faults` apply until somebody sets them to NONE; `trace` is what went wrong, for the report."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: Random,
        faults: Faults,
        *,
        replicated: bool,
        saga_wait_s: float,
        arm_wait_s: float,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.faults = faults
        self.replicated = replicated
        self.up = True
        self.trace: list[str] = []
        self.tasks: dict[str, list[Event]] = {}
        self.republish: list[Callable[[Message], None]] = []
        self._ids: dict[str, tuple[int, float]] = {}
        self._in_flight: dict[str, str] = {}
        self._timers: dict[str, tuple[float, list[asyncio.TimerHandle]]] = {}
        self.events = Stream("EVENTS")
        self._streams = {"EVENTS": self.events}
        for name in ("COMMANDS", "TIMERS"):
            self._streams[name] = Stream(name, is_queue=name == "COMMANDS")
        saga = ("task.received.", "task.planned.", "plan.failed.", "step.executed.", "step.failed.")
        for stream, consumer, facts, wait in (
            ("EVENTS", "saga", saga, saga_wait_s),
            ("EVENTS", "planner", ("task.received.",), arm_wait_s),
            ("EVENTS", "executor", ("step.dispatched.",), arm_wait_s),
            ("COMMANDS", "orchestrator", ("task.",), saga_wait_s),
            ("TIMERS", "orchestrator", ("timer.fired.",), saga_wait_s),
        ):
            of = self._streams[stream]
            of.consumers[consumer] = DurableConsumer(self, of, consumer, facts, wait)

    def note(self, what: str) -> None:
        """Remembers something that went wrong."""
        self.trace.append(f"{self.loop.now:9.4f} {what}")

    @property
    def now(self) -> datetime:
        """The broker's clock."""
        return EPOCH + timedelta(microseconds=round(self.loop.now * 1e6))

    @property
    def is_idle(self) -> bool:
        """Every message has been delivered and answered."""
        return all(consumer.is_idle for stream in self._streams.values() for consumer in stream.consumers.values())

    def take(self, message: Message, reply: Reply, pulling: Callable[[Message], bool]) -> None:
        """A message from a client has arrived. `reply` answers it; `pulling` delivers to its inbox while it listens."""
        subject = message.subject
        if subject.startswith("$JS.ACK."):
            _, _, stream, consumer, _, seq, *_ = subject.split(".")
            self._streams[stream].consumers[consumer].answer(int(seq), message.data)
        elif subject.startswith("$JS.API.CONSUMER.MSG.NEXT."):
            *_, stream, consumer = subject.split(".")
            asked = json.loads(message.data)
            request = Pulling(pulling, asked["batch"], self.loop.now + asked["expires"] / 1e9)
            self._streams[stream].consumers[consumer].pull(request)
            self._attend(request, asked["idle_heartbeat"] / 1e9)
        elif subject.startswith("$JS.API.DIRECT.GET.EVENTS"):
            self._direct_get(subject.removeprefix("$JS.API.DIRECT.GET.EVENTS").removeprefix("."), message.data, reply)
        elif subject.startswith("timer.set."):
            self._set_timer(message, reply)
        elif subject.count(".") == 1:
            stored = self._store("COMMANDS", message)
            reply(_ack({"stream": "COMMANDS", "seq": stored.seq}))
        else:
            self._append(message, reply)

    def _attend(self, request: Pulling, every: float) -> None:
        """Heartbeats while it waits, and word of its end."""

        def beat() -> None:
            if request.left > 0 and request.until > self.loop.now:
                status = {"Status": "100"}
            elif request.left > 0:
                status = {"Status": "408", "Nats-Pending-Messages": str(request.left)}
            else:
                return
            if self.up and request.deliver(Message("", status, b"")) and status["Status"] == "100":
                self.loop.call_at(min(self.loop.now + every, request.until), beat)

        self.loop.call_later(every, beat)

    # The log.

    def _append(self, message: Message, reply: Reply) -> None:
        headers = message.headers or {}
        task_id, identity = message.subject.rsplit(".", 1)[1], headers.get("Nats-Msg-Id", "")
        last = self.tasks[task_id][-1].seq if task_id in self.tasks else 0
        is_expected = int(headers.get(_EXPECTED, last)) == last
        known = self._ids.get(identity)
        is_duplicate = known is not None and self.loop.now - known[1] < _DUPLICATE_WINDOW_S
        duplicate = {"stream": "EVENTS", "seq": known[0] if known else 0, "duplicate": True}
        if not self.replicated:
            if not is_expected:
                reply(_refusal(10071, f"wrong last sequence: {last}"))
            elif is_duplicate:
                reply(_ack(duplicate))
            else:
                reply(_ack({"stream": "EVENTS", "seq": self._put_on_record(message)}))
            return
        if is_duplicate:
            reply(_ack(duplicate))
        elif self._in_flight.get(task_id) == identity:
            reply(_refusal(10158, "duplicate message id is in process"))
        elif task_id in self._in_flight and _EXPECTED in headers:
            reply(_refusal(10164, "wrong last sequence"))
        elif not is_expected:
            reply(_refusal(self.rng.choice((10071, 10164)), "wrong last sequence"))
        else:
            self._in_flight[task_id] = identity
            self.loop.call_later(self.rng.uniform(0.0005, 0.01), self._commit, task_id, message, reply)

    def _commit(self, task_id: str, message: Message, reply: Reply) -> None:
        self._in_flight.pop(task_id, None)
        reply(_ack({"stream": "EVENTS", "seq": self._put_on_record(message)}))

    def _put_on_record(self, message: Message) -> int:
        stored = self._store("EVENTS", message)
        event = Event.parse(stored.subject, stored.headers, stored.data, stored.seq, broker_time(stored.time_ns))
        self.tasks.setdefault(event.task_id, []).append(event)
        self._ids[event.id] = (stored.seq, self.loop.now)
        copy = Message(f"log.{stored.subject}", stored.headers, stored.data)
        for listener in self.republish:
            listener(copy)
        return stored.seq

    def _store(self, stream: str, message: Message) -> Stored:
        stored = self._streams[stream].store(message, self.loop.now)
        for consumer in self._streams[stream].consumers.values():
            consumer.pump()
        return stored

    def _direct_get(self, subject: str, body: bytes, reply: Reply) -> None:
        until = self.loop.now
        if self.replicated and self.rng.random() < self.faults.stale:
            until -= self.rng.uniform(0, self.faults.lag_s)
        asked = json.loads(body or b"{}")
        wanted = subject or asked.get("last_by_subj") or asked["next_by_subj"]
        found = [stored for stored in self._matching(wanted) if stored.at <= until]
        if "next_by_subj" not in asked:
            reply(_direct(found[-1]) if found else Message("", {"Status": "404"}, b""))
            return
        first = asked.get("seq", 0)
        if "start_time" in asked:
            since = (datetime.fromisoformat(asked["start_time"]) - EPOCH).total_seconds()
            found = [stored for stored in found if stored.at >= since]
        found = [stored for stored in found if stored.seq >= first]
        for stored in found[: asked["batch"]]:
            reply(_direct(stored))
        pending = str(max(0, len(found) - asked["batch"]))
        reply(Message("", {"Status": "204", "Nats-Num-Pending": pending} if found else {"Status": "404"}, b""))

    def _matching(self, wildcard: str) -> list[Stored]:
        """The messages of the log under `*.*.<task>`, `<entity>.<fact>.*`, or a subject."""
        fact, task_id = wildcard.rsplit(".", 1)
        if task_id == "*":
            return [stored for stored in self.events.messages.values() if stored.subject.startswith(f"{fact}.")]
        stored = [self.events.messages[event.seq] for event in self.tasks.get(task_id, ())]
        return stored if fact == "*.*" else [message for message in stored if message.subject == wildcard]

    # Schedules.

    def _set_timer(self, message: Message, reply: Reply) -> None:
        headers = message.headers or {}
        target = headers["Nats-Schedule-Target"]
        if headers.get(_EXPECTED) == "0" and target in self._timers:
            reply(_refusal(10071, "wrong last sequence"))
            return
        at = (datetime.fromisoformat(headers["Nats-Schedule"].removeprefix("@at ")) - EPOCH).total_seconds()
        for handle in self._timers.pop(target, (0.0, []))[1]:
            handle.cancel()
        at = max(at, self.loop.now)
        if self.rng.random() < self.faults.late_timer:
            at += self.rng.uniform(0, 3)
        handles = [self.loop.call_at(at, self._fire, target)]
        if self.rng.random() < self.faults.double_timer:
            handles.append(self.loop.call_at(at + self.rng.uniform(0, 3), self._fire, target))
        self._timers[target] = (self.loop.now, handles)
        reply(_ack({"stream": "TIMERS", "seq": 1}))

    def _fire(self, target: str) -> None:
        _, handles = self._timers.get(target, (0.0, []))
        if all(handle.when() <= self.loop.now for handle in handles):
            self._timers.pop(target, None)
        self._store("TIMERS", Message(target, {}, b""))

    # Its own end, and its coming back.

    def crash(self) -> None:
        """Goes down; what it had not synced is gone."""
        self.up = False
        for stream in self._streams.values():
            for consumer in stream.consumers.values():
                consumer.restart()
        for target, (since, handles) in tuple(self._timers.items()):
            if not self.replicated and self.loop.now - since < 1.0 and self.rng.random() < 0.5:
                self.note(f"the schedule of {target} is lost")
                for handle in handles:
                    handle.cancel()
                del self._timers[target]

    def start(self) -> None:
        """Is there again."""
        self.up = True

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.faults = NONE


def _ack(body: dict[str, object]) -> Message:
    return Message("", {}, json.dumps(body).encode())


def _refusal(code: int, description: str) -> Message:
    return _ack({"error": {"code": 400, "err_code": code, "description": description}})


def _direct(stored: Stored) -> Message:
    moment = EPOCH + timedelta(microseconds=round(stored.at * 1e6))
    headers = stored.headers | {
        "Nats-Subject": stored.subject,
        "Nats-Sequence": str(stored.seq),
        "Nats-Time-Stamp": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    return Message(stored.subject, headers, stored.data)
