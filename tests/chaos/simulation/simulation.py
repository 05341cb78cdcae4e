"""One run: a broker, one or two orchestrators, a planner, one or two executors, and what goes wrong, all from a seed.

Real: the orchestrator (intake, runner, fold, decide, timers), the planner's intake, the log, the consumers. Models:
the broker, the network, the executor. Nothing waits and nothing runs in parallel.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from random import Random
from typing import Any, Self
from unittest.mock import patch

import msgspec
import structlog

from octollm.events.carrier import ErrorCode, TaskCancel, TaskReceived, TaskResume
from octollm.events.envelope import NewEvent, Position, envelope
from octollm.events.log import Log
from octollm.events.schema import encode
from octollm.orchestrator.intake import Intake
from octollm.orchestrator.recovery import Recovery
from octollm.orchestrator.retry import RULES, Rule
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.timers import Timers
from octollm.planner.intake import Intake as PlannerIntake
from octollm.planner.outcome import Outcome
from octollm.planner.planning import Planning
from tests.chaos.simulation import workload
from tests.chaos.simulation.broker import EPOCH, Broker, Message
from tests.chaos.simulation.client import SimulatedClient
from tests.chaos.simulation.executor import ExecutorModel, Host
from tests.chaos.simulation.faults import Faults
from tests.chaos.simulation.invariants import Judge, Violation
from tests.chaos.simulation.loop import Process, VirtualLoop
from tests.chaos.simulation.workload import Work
from tests.orchestrator.history import TOKEN, received

CHAOS_S = 6.0
"""After so many virtual seconds nothing goes wrong any more."""

LONGEST_S = workload.PATIENT_S + 120.0
"""By then every task has ended, or never will."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The system under test; a planted bug replaces one of them."""

    log: type[Log] = Log
    timers: type[Timers] = Timers
    runner: type[Runner] = Runner
    intake: type[Intake] = Intake
    recovery: type[Recovery] = Recovery
    executor: type[ExecutorModel] = ExecutorModel
    rules: Mapping[ErrorCode, Rule] = field(default_factory=lambda: RULES)


@dataclass
class Run:
    """What came of a seed."""

    seed: int
    violations: list[Violation]
    history: list[str] = field(repr=False)

    def report(self) -> str:
        """For people: what is broken, and everything that led to it."""
        broken = "\n".join(f"  {violation}" for violation in self.violations)
        return f"seed {self.seed}:\n{broken}\n" + "\n".join(self.history)


def run(seed: int, parts: Parts | None = None, faults: Faults | None = None) -> Run:
    """Runs a seed to its end, with faults drawn from it unless given. The same in, the same run, to the byte."""
    loop = VirtualLoop()
    parts = parts or Parts()
    simulation = _Simulation(loop, seed, parts, faults)
    try:
        with _without_clocks(loop, Random(seed)), patch("octollm.orchestrator.retry.RULES", parts.rules):
            loop.run_until_complete(simulation.run())
    finally:
        loop.close()
    return Run(seed, simulation.judge.violations, simulation.history())


class _Planning(Planning):
    """Answers with the plan of the workload."""

    def __init__(self, works: dict[str, Work]) -> None:
        super().__init__()
        self._works = works

    async def plan(self, task_id: str, task: TaskReceived, received_at: datetime) -> Outcome:
        work = self._works[task_id]
        await asyncio.sleep(work.planning_s)
        if work.plan is None:
            await asyncio.Event().wait()
        assert work.plan is not None
        return work.plan


class _Simulation:
    def __init__(self, loop: VirtualLoop, seed: int, parts: Parts, faults: Faults | None) -> None:
        self._loop = loop
        self._rng = Random(seed)
        self._parts = parts
        self._works = {work.task_id: work for work in workload.draw(self._rng)}
        self._host = Host(
            {(work.task_id, name): how for work in self._works.values() for name, how in work.behaviours.items()}
        )
        self._arm_wait_s = self._rng.choice((1.0, 30.0))
        self._grace = timedelta(seconds=self._rng.choice((0.5, 15)))
        self._broker = Broker(
            loop,
            self._rng,
            faults or Faults.draw(self._rng),
            replicated=self._rng.random() < 0.5,
            saga_wait_s=5.0,
            arm_wait_s=self._arm_wait_s,
        )
        self._clients: dict[str, SimulatedClient] = {}
        self._mains: dict[str, Callable[[Any], Awaitable[None]]] = {"planner": self._plan}
        for number in range(self._rng.choice((1, 2, 2))):
            self._mains[f"orchestrator-{number}"] = self._orchestrate
        for number in range(self._rng.choice((1, 1, 2))):
            self._mains[f"executor-{number}"] = self._execute
        self._is_calm = False
        self.judge = Judge(self._broker, self._works, self._host, self._grace, CHAOS_S)

    async def run(self) -> None:
        self._loop.set_exception_handler(self._unexpected)
        world = Process("world")
        for name in self._mains:
            self._start(name)
        for work in self._works.values():
            world.start(self._submit(work))
            if work.cancelled is not None:
                world.start(self._cancel(work, work.cancelled))
            if work.resumed is not None:
                world.start(self._resume(work, work.resumed))
        world.start(self._restart_broker())
        world.start(self._kill_processes())
        await asyncio.sleep(CHAOS_S)
        self._calm()
        while not (self.judge.all_ended and self._broker.is_idle) and self._loop.now < LONGEST_S:
            await asyncio.sleep(1)
            self.judge.watch()
            if self.judge.violations:
                break
        self.judge.conclude()
        for process in (world, *(client.process for client in self._clients.values())):
            process.kill()
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    def history(self) -> list[str]:
        """Events, faults and the set-up, in order of time."""
        kind = "replicated" if self._broker.replicated else "one node"
        lines = [f"{kind}; {', '.join(self._mains)}; arms' ack_wait {self._arm_wait_s:g} s; grace {self._grace}"]
        happened = list(self._broker.trace)
        for stored in self._broker.events.messages.values():
            event = next(
                event for event in self._broker.tasks[stored.subject.rsplit(".", 1)[1]] if event.seq == stored.seq
            )
            about = event.data.get("step_id") or event.data.get("step", {}).get("id", "") or event.data.get("code", "")
            writer = event.source.removeprefix("/octollm/")
            text = f"{event.task_id[:8]} v{event.version} {event.kind} {about} by {writer}"
            happened.append(f"{stored.at:9.4f} {text} id {event.id[:8]} seq {event.seq}")
        return lines + sorted(happened, key=lambda line: float(line[:9]))

    # Processes.

    def _start(self, name: str) -> None:
        process = Process(name)
        client = SimulatedClient(self._broker, process, self._rng, self._crashed)
        self._clients[name] = client
        process.start(self._supervised(name, client))

    async def _supervised(self, name: str, client: SimulatedClient) -> None:
        while not client.is_connected:
            await asyncio.sleep(0.1)
        await self._mains[name](client)

    def _crashed(self, process: Process) -> None:
        self.judge.crashed.add(process.name)
        self._broker.republish.remove(self._clients[process.name]._republished)
        process.kill()
        self._loop.call_later(self._rng.uniform(0.01, 1), self._start, process.name)

    async def _orchestrate(self, client: Any) -> None:
        skew = timedelta(seconds=self._rng.uniform(-2, 2))
        runner = self._parts.runner(
            self._parts.log(client, "orchestrator"),
            self._parts.timers(client),
            grace=self._grace,
            cache_size=self._rng.choice((1, 100)),
            # No two signatures are equal, and a run is to be the same to the byte.
            sign=lambda _: TOKEN,
            clock=lambda: self._broker.now + skew,
        )
        self.judge.observe(runner)
        recovery = self._parts.recovery(client, runner)
        await self._parts.intake(client, runner, recovery).run(asyncio.Event())

    async def _plan(self, client: Any) -> None:
        intake = PlannerIntake(client, Log(client, "planner"), _Planning(self._works), concurrency=4)
        await intake.run(asyncio.Event())

    async def _execute(self, client: Any) -> None:
        await self._parts.executor(client, self._broker, self._host, self._rng, self._arm_wait_s).run()

    # The world.

    async def _submit(self, work: Work) -> None:
        new = NewEvent(payload=received(seconds=work.time_budget, retries=work.max_retries), causation_id=work.task_id)
        headers = envelope(work.task_id, new, Position.START, "reflex")
        await self._from_outside(work.submitted, Message(f"{new.kind}.{work.task_id}", headers, encode(new.payload)))

    async def _cancel(self, work: Work, at: float) -> None:
        command = TaskCancel(task_id=work.task_id, requested_by="operator", reason="a change of mind")
        await self._from_outside(at, Message("task.cancel", {}, msgspec.json.encode(command)))

    async def _resume(self, work: Work, at: float) -> None:
        command = TaskResume(task_id=work.task_id, requested_by="operator")
        await self._from_outside(at, Message("task.resume", {}, msgspec.json.encode(command)))

    async def _from_outside(self, at: float, message: Message) -> None:
        """Somebody who is none of the processes stores a message, as soon as the broker takes it."""
        await asyncio.sleep(at)
        while not self._broker.up:
            await asyncio.sleep(0.05)
        self._broker.take(message, lambda answer: None, lambda delivered: False)

    async def _restart_broker(self) -> None:
        for _ in range(self._broker.faults.restarts):
            await asyncio.sleep(self._rng.uniform(0, CHAOS_S / 3))
            self._broker.note("the broker crashes")
            self._broker.crash()
            for client in self._clients.values():
                client.disconnect()
            if self._rng.random() < self._broker.faults.machine:
                for client in tuple(self._clients.values()):
                    self._kill(client, "with the machine")
            await asyncio.sleep(self._rng.uniform(0.1, 1))
            self._broker.note("the broker is back")
            self._broker.start()
            for name in tuple(self._clients):
                self._loop.call_later(self._rng.uniform(0.01, 0.3), self._reconnect, name)

    async def _kill_processes(self) -> None:
        for _ in range(self._broker.faults.kills):
            await asyncio.sleep(self._rng.uniform(0, CHAOS_S / 3))
            self._kill(self._clients[self._rng.choice(tuple(self._mains))], "out of the blue")

    def _kill(self, client: SimulatedClient, why: str) -> None:
        if client.process.alive:
            self._broker.note(f"{client.process.name}: killed {why}")
            self._crashed(client.process)

    def _reconnect(self, name: str) -> None:
        self._clients[name].reconnect()

    def _calm(self) -> None:
        self._broker.calm()
        self._broker.note("nothing goes wrong any more")

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What no task handled; of a killed process it is no matter."""
        error = context.get("exception")
        self.judge.unexpected(f"{context.get('message')}: {error!r}")


class _Clock(datetime):
    """The clock of the machine, in virtual time."""

    loop: VirtualLoop

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        moment = EPOCH + timedelta(microseconds=round(cls.loop.now * 1e6))
        return cls.fromtimestamp(moment.timestamp(), tz)


@contextlib.contextmanager
def _without_clocks(loop: VirtualLoop, rng: Random) -> Iterator[None]:
    """Nothing in a run reads the clock or a generator of its own; nothing is logged."""

    class Clock(_Clock):
        pass

    Clock.loop = loop
    with (
        patch("octollm.events.envelope.datetime", Clock),
        patch("octollm.events.consumer.random", rng),
        patch("octollm.events.gate.random", rng),
        structlog.testing.capture_logs(),
    ):
        yield
