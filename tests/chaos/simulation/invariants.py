"""What holds in every run, whatever went wrong; read from the log and from the world, not from what the saga says."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from octollm.events.carrier import (
    Effect,
    ErrorCode,
    PlanFailed,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskFailed,
    TaskPlanned,
    TaskReceived,
)
from octollm.events.envelope import NO_HASH, Event
from octollm.orchestrator.cache import Entry
from octollm.orchestrator.fold import evolve
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.saga import next_deadline
from octollm.orchestrator.state import Executed, Executing, Failed, New, Open, Running, State, StepState
from tests.chaos.simulation import attempts
from tests.chaos.simulation.broker import EPOCH, Broker
from tests.chaos.simulation.executor import Host
from tests.chaos.simulation.workload import Work

SLACK = timedelta(seconds=45)
"""After a deadline, once nothing goes wrong: a late timer, a lost ack, the longest pause between deliveries."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, by name."""

    invariant: str
    task_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: task {self.task_id[:8]}: {self.what}"


class Judge:
    """Watches a run and says what is broken. `crashed`: names of processes that were killed."""

    def __init__(self, broker: Broker, works: dict[str, Work], host: Host, grace: timedelta, calm_at: float) -> None:
        self.violations: list[Violation] = []
        self.crashed: set[str] = set()
        self._broker = broker
        self._works = works
        self._host = host
        self._grace = grace
        self._calm_at = EPOCH + timedelta(seconds=calm_at)
        self._folds: dict[str, list[State]] = {}

    @property
    def all_ended(self) -> bool:
        return all(any(event.terminal for event in self._log(task_id)) for task_id in self._works)

    def observe(self, runner: Runner) -> None:
        """From now on, whatever the runner keeps in memory is compared with the log."""
        cache = runner._cache
        keep = cache.put

        def put(task_id: str, entry: Entry) -> None:
            self._compare(task_id, entry.state)
            keep(task_id, entry)

        cache.put = put  # type: ignore[method-assign]

    def watch(self) -> None:
        """Now that nothing goes wrong: no deadline lies far behind."""
        for task_id in self._works:
            due = next_deadline(self._state(task_id, len(self._log(task_id))), grace=self._grace)
            if due is not None and self._broker.now > max(due, self._calm_at) + SLACK:
                self._broken("deadlines are kept", task_id, f"due at {due - EPOCH}, now {self._broker.now - EPOCH}")

    def conclude(self) -> None:
        """Everything that can be seen from the end."""
        for task_id, work in self._works.items():
            events = self._log(task_id)
            self._chain(task_id, events)
            self._endings(task_id, events)
            self._steps(task_id, events)
            for invariant, what in attempts.broken(events) if events else ():
                self._broken(invariant, task_id, what)
            if events and events[-1].terminal:
                self._outcome(work, events)
        effects: Counter[tuple[str, str]] = Counter()
        for (task_id, name, _), count in self._host.effects.items():
            effects[task_id, name] += count
        for (task_id, name), count in effects.items():
            planned = self._planned(self._log(task_id))
            effect = next((step.effect for step in planned.steps if step.id == name), None) if planned else None
            if effect == Effect.side_effecting and count > 1:
                self._broken("a side effect takes place once", task_id, f"step {name} had its effect {count} times")

    def _broken(self, invariant: str, task_id: str, what: str) -> None:
        violation = Violation(invariant, task_id, what)
        if violation not in self.violations:
            self.violations.append(violation)

    def _log(self, task_id: str) -> list[Event]:
        return self._broker.tasks.get(task_id, [])

    def unexpected(self, what: str) -> None:
        """An error that nobody handled."""
        self._broken("errors are handled", "", what)

    # What the saga has in memory.

    def _state(self, task_id: str, version: int) -> State:
        """The fold of the first `version` events."""
        events, folds = self._log(task_id), self._folds.setdefault(task_id, [New()])
        while len(folds) <= version:
            folds.append(evolve(folds[-1], events[len(folds) - 1]))
        return folds[version]

    def _compare(self, task_id: str, state: State) -> None:
        events, version = self._log(task_id), state.position.version
        if version > len(events):
            self._broken("memory equals the log", task_id, f"holds version {version} of {len(events)}")
        elif _timeless(state) != _timeless(self._state(task_id, version)):
            self._broken("memory equals the log", task_id, f"holds another state than the fold of {version} events")

    # What the log has.

    def _chain(self, task_id: str, events: list[Event]) -> None:
        expected, previous = 1, NO_HASH
        for event in events:
            if event.version != expected or event.prev_hash != previous:
                self._broken(
                    "the chain is intact", task_id, f"{event.kind} says version {event.version}, not {expected}"
                )
                return
            expected, previous = expected + 1, event.hash
        twice = [identity for identity, count in Counter(event.id for event in events).items() if count > 1]
        if twice:
            self._broken("an id is used once", task_id, f"id {twice[0][:8]}")

    def _endings(self, task_id: str, events: list[Event]) -> None:
        endings = [place for place, event in enumerate(events) if event.terminal]
        if len(endings) != 1:
            self._broken("one terminal event", task_id, f"{len(endings)} terminal events")
        elif endings[0] != len(events) - 1:
            self._broken("nothing after the end", task_id, f"{events[-1].kind} after {events[endings[0]].kind}")

    def _steps(self, task_id: str, events: list[Event]) -> None:
        dispatched: set[tuple[str, int]] = set()
        settled: set[tuple[str, int]] = set()
        done: set[str] = set()
        for event in events:
            match event.payload:
                case StepDispatched(step=step, attempt=attempt):
                    if (step.id, attempt) in dispatched:
                        self._broken("an attempt is dispatched once", task_id, f"step {step.id}")
                    if not done.issuperset(step.depends_on):
                        self._broken("dependencies come first", task_id, f"step {step.id}")
                    dispatched.add((step.id, attempt))
                case StepExecuted(step_id=name, attempt=attempt) | StepFailed(step_id=name, attempt=attempt):
                    if (name, attempt) in settled:
                        self._broken("an attempt is settled once", task_id, f"step {name}")
                    if (name, attempt) not in dispatched:
                        self._broken("a result follows its dispatch", task_id, f"step {name}")
                    settled.add((name, attempt))
                    if isinstance(event.payload, StepExecuted):
                        done.add(name)

    # What the contract allows.

    def _outcome(self, work: Work, events: list[Event]) -> None:
        for event in events:
            if isinstance(event.payload, StepFailed) and not self._may_fail(work, events, event, event.payload):
                self._broken("a failure has its reason", work.task_id, f"{event.payload.step_id} {event.payload.code}")
        end = events[-1]
        allowed = self._allowed(work, events)
        ended = end.payload.code.value if isinstance(end.payload, TaskFailed) else end.kind.removeprefix("task.")
        if ended not in allowed:
            self._broken(
                "the outcome is allowed", work.task_id, f"ended {ended}, allowed: {', '.join(sorted(allowed))}"
            )

    def _allowed(self, work: Work, events: list[Event]) -> set[str]:
        payloads = [event.payload for event in events]
        if any(event.kind == "task.cancel_requested" for event in events):
            return {"cancelled"}
        planned = self._planned(events)
        executed = {payload.step_id for payload in payloads if isinstance(payload, StepExecuted)}
        if planned and executed.issuperset(step.id for step in planned.steps):
            return {"completed"}
        allowed = {payload.code.value for payload in payloads if isinstance(payload, PlanFailed)}
        latest = {payload.step.id: payload.attempt for payload in payloads if isinstance(payload, StepDispatched)}
        # What another attempt has followed decides nothing.
        allowed |= {
            payload.code.value
            for payload in payloads
            if isinstance(payload, StepFailed) and payload.attempt == latest.get(payload.step_id)
        }
        if not work.must_complete and events[-1].stored_at >= _deadline(events):
            allowed.add(ErrorCode.TIMEOUT.value)
        return allowed

    def _may_fail(self, work: Work, events: list[Event], event: Event, failed: StepFailed) -> bool:
        behaviour = work.behaviours[failed.step_id]
        dispatch, dispatched = next(
            (other, other.payload)
            for other in events
            if isinstance(other.payload, StepDispatched)
            and (other.payload.step.id, other.payload.attempt) == (failed.step_id, failed.attempt)
        )
        cancels = [other.stored_at for other in events if other.kind == "task.cancel_requested"]
        limit = dispatch.stored_at + timedelta(milliseconds=dispatched.step.limits.wall_ms) + self._grace
        match failed.code:
            case ErrorCode.UNKNOWN_OUTCOME:
                return dispatched.step.effect == Effect.side_effecting
            case ErrorCode.CANCELLED:
                return bool(cancels)
            case ErrorCode.ARM_UNAVAILABLE:
                return event.stored_at >= min([limit, *(asked + self._grace for asked in cancels)])
            case ErrorCode.TIMEOUT:
                return event.stored_at >= min(_deadline(events), datetime.fromisoformat(dispatched.deadline))
            case code:
                return code == behaviour.code and failed.attempt <= behaviour.attempts

    def _planned(self, events: list[Event]) -> TaskPlanned | None:
        return next((event.payload for event in events if isinstance(event.payload, TaskPlanned)), None)


def _deadline(events: list[Event]) -> datetime:
    received = events[0].payload
    assert isinstance(received, TaskReceived)
    return events[0].stored_at + timedelta(seconds=received.budget.max_time_seconds)


def _timeless(state: State) -> State:
    """Without the times that depend on events of the saga's own: an ack has none (docs/decisions/0003)."""
    if not isinstance(state, Open):
        return state
    state = replace(state, at=EPOCH, cancel=state.cancel and replace(state.cancel, at=EPOCH))
    if isinstance(state, Executing):
        state = replace(state, steps=tuple(map(_timeless_step, state.steps)))
    return state


def _timeless_step(step: StepState) -> StepState:
    match step:
        case Running():
            return replace(step, since=EPOCH)
        case Executed() | Failed():
            return replace(step, at=EPOCH)
        case _:
            return step
