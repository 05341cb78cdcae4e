"""Bugs that somebody could write, each a small change of one part: the simulation has to find every one of them."""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

from octollm.events.carrier import ErrorCode
from octollm.events.consumer import Delivery, Handler
from octollm.events.envelope import Event, Position, event_id
from octollm.events.log import Conflict, Log
from octollm.orchestrator.cache import Entry
from octollm.orchestrator.fold import evolve
from octollm.orchestrator.grants import granted
from octollm.orchestrator.intake import Intake
from octollm.orchestrator.recovery import Recovery
from octollm.orchestrator.retry import RULES
from octollm.orchestrator.runner import Runner, Stuck
from octollm.orchestrator.saga import Intent, Trigger, decide
from octollm.orchestrator.state import Ended, Open
from octollm.orchestrator.timers import Timers
from tests.chaos.simulation.executor import Attempt, Behaviour, ExecutorModel
from tests.chaos.simulation.faults import Faults
from tests.chaos.simulation.simulation import Parts


class PositionalIds(Runner):
    """An id says which of the decisions it is, not what the decision is about."""

    async def _append(self, task_id: str, entry: Entry, intent: Intent, trigger: Trigger) -> None:
        await super()._append(task_id, entry, replace(intent, key="0"), trigger)


class AckBeforeAppend(Intake):
    """A delivery is answered before what follows from it is on record."""

    async def _handle(self, stream: str, delivery: Delivery, handler: Handler) -> None:
        await delivery.ack()
        await super()._handle(stream, delivery, handler)


class NoExpectation(Log):
    """An append does not say after which event it belongs."""

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str], task_id: str) -> dict[str, Any]:
        unguarded = {name: value for name, value in headers.items() if not name.startswith("Nats-Expected")}
        return await super()._publish(subject, body, unguarded, task_id)


class ConflictTakenAsStored(Log):
    """The refusal of a replicated stream is not known, and passes for an ack."""

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str], task_id: str) -> dict[str, Any]:
        ack = await super()._publish(subject, body, headers, task_id)
        if ack.get("error", {}).get("err_code") == 10164:
            return {"stream": "EVENTS", "seq": int(headers["Nats-Expected-Last-Subject-Sequence"]) + 1}
        return ack


class FoundIdTakenAsOwn(Runner):
    """An event of the own id, found after a conflict, passes for the own append; what stands before it is skipped."""

    async def _append(self, task_id: str, entry: Entry, intent: Intent, trigger: Trigger) -> None:
        assert isinstance(entry.state, Open)
        expected = entry.state.position
        try:
            await self._log.append(task_id, granted(task_id, intent, self._sign), expected)
        except Conflict:
            own = event_id(task_id, intent.causation_id, intent.kind, intent.key)
            found = [event for event in await self._log.read(task_id, after=expected) if event.id == own]
            if found:
                entry.state = evolve(entry.state, found[0])
                return
        await super()._append(task_id, entry, intent, trigger)


class LateResultApplied(ExecutorModel):
    """A result goes on record, whatever has become of its attempt."""

    def may_append(self, since: list[Event], attempt: Attempt) -> bool:
        return True


class TimerNotSetAgain(Runner):
    """A task's deadline is set once, and not when it moves earlier or has come back."""

    async def _watch(self, task_id: str, entry: Entry) -> None:
        armed: set[str] = self.__dict__.setdefault("armed", set())
        if task_id not in armed:
            armed.add(task_id)
            await super()._watch(task_id, entry)


class EndedReopened(Runner):
    """A late timer or cancel finds a task that has ended as it was before its end."""

    def _fold(self, entry: Entry, events: list[Event]) -> None:
        before = entry.state
        super()._fold(entry, events)
        if isinstance(entry.state, Ended) and len(events) > 1:
            super()._fold(unended := Entry(before), events[:-1])
            last = replace(events[-1].position, terminal=False)
            entry.state = replace(unended.state, position=last)


class ClaimAfterSpawn(ExecutorModel):
    """The claim is made when the program already runs."""

    async def run_once(
        self, dispatch: Event, attempt: Attempt, behaviour: Behaviour, cancel: asyncio.Event, expected: Position
    ) -> tuple[Any, Position] | None:
        if attempt in self.host.claims or await self.is_settled(dispatch, attempt):
            return await super().run_once(dispatch, attempt, behaviour, cancel, expected)
        report = await self.spawn(attempt, behaviour, cancel)
        self.host.claims.add(attempt)
        return report, expected


class SideEffectRetried(ExecutorModel):
    """A claimed attempt without a result is run again."""

    async def run_once(
        self, dispatch: Event, attempt: Attempt, behaviour: Behaviour, cancel: asyncio.Event, expected: Position
    ) -> tuple[Any, Position] | None:
        self.host.claims.discard(attempt)
        return await super().run_once(dispatch, attempt, behaviour, cancel, expected)


CORRECT = Parts()

_MAY_HAVE_RUN = (ErrorCode.ARM_UNAVAILABLE, ErrorCode.INTERNAL_ERROR, ErrorCode.UNKNOWN_OUTCOME)
_ANY = RULES[ErrorCode.SANDBOX_UNAVAILABLE]

BUGS: dict[str, Parts] = {
    "positional id instead of key": replace(CORRECT, runner=PositionalIds),
    "ack before append": replace(CORRECT, intake=AckBeforeAppend),
    "no expected sequence": replace(CORRECT, log=NoExpectation),
    "10164 taken as stored": replace(CORRECT, log=ConflictTakenAsStored),
    "own id in the log taken as own append": replace(CORRECT, runner=FoundIdTakenAsOwn),
    "late result applied": replace(CORRECT, executor=LateResultApplied),
    "timer not set again": replace(CORRECT, runner=TimerNotSetAgain),
    "terminal state reopened": replace(CORRECT, runner=EndedReopened),
    "claim after spawn": replace(CORRECT, executor=ClaimAfterSpawn),
    "retry of a side effect": replace(CORRECT, executor=SideEffectRetried),
    "another attempt at what may have run": replace(CORRECT, rules={**RULES, **dict.fromkeys(_MAY_HAVE_RUN, _ANY)}),
    "no attempt but the first": replace(CORRECT, rules=dict.fromkeys(RULES, RULES[ErrorCode.CANCELLED])),
}


# What the simulation found in the code as it was: the corrected system, with one correction taken back.


class GivesUpByOwnClock(Runner):
    """An arm is given up by the time that an own append was folded with, which is that of what caused it."""

    async def _settle(self, task_id: str, entry: Entry, trigger: Trigger) -> None:
        while intents := decide(entry.state, trigger, grace=self._grace):
            await self._append(task_id, entry, intents[0], trigger)
        await self._watch(task_id, entry)
        self._cache.put(task_id, entry)


class StaleReadTrusted(Runner):
    """A read that lags behind the delivered event passes for the whole log, and the delivery is acked."""

    async def event(self, event: Event) -> None:
        try:
            await super().event(event)
        except Stuck:
            return


class LaterTimerSet(Timers):
    """Who knows nothing but a task's first event sets its last deadline, in the place of an earlier one."""

    async def set(self, task_id: str, at: datetime, *, only_if_unset: bool = False) -> None:
        await super().set(task_id, at)


class RecoversWhatIsCached(Recovery):
    """After a crash of the broker, tasks that are in hand or no longer in memory keep a timer that is gone."""

    async def _open_tasks(self) -> list[str]:
        return list(self._runner._cache._open)


class StartsWithoutALook(Recovery):
    """A task whose timer and whose orchestrator went down together waits for ever."""

    async def _look(self) -> bool:
        is_start = "looked" not in self.__dict__
        self.__dict__["looked"] = True
        return is_start or await super()._look()


class FirstDeliveryTrusted(ExecutorModel):
    """A delivery that says it is the first passes for one, though the broker has forgotten the one before."""

    async def is_settled(self, dispatch: Event, attempt: Attempt) -> bool:
        return False


_RESTARTS = Faults(restarts=3)
_LOSSES = Faults(lost_answer=0.5, kills=3, slow=0.1, delay_s=0.5)

DEFECTS: dict[str, tuple[Parts, Faults | None]] = {
    "gives up by its own clock": (replace(CORRECT, runner=GivesUpByOwnClock), _LOSSES),
    "stale read trusted": (replace(CORRECT, runner=StaleReadTrusted), Faults(stale=0.8)),
    "later timer set": (replace(CORRECT, timers=LaterTimerSet), _LOSSES),
    "recovers only what is cached": (replace(CORRECT, recovery=RecoversWhatIsCached), _RESTARTS),
    "starts without a look": (replace(CORRECT, recovery=StartsWithoutALook), Faults(restarts=3, machine=1.0)),
    "first delivery trusted": (replace(CORRECT, executor=FirstDeliveryTrusted), _RESTARTS),
}
"""With the faults that show it soonest; None for those that the seed draws."""
