"""A storm: users ask and cancel while every part of the system is killed and started again, at random from a seed."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from octollm.stack import NotReady
from tests.chaos.failpoints.rig import Channel, Rig
from tests.chaos.failpoints.workload import (
    CANCELLED,
    COUNTER,
    EFFECT,
    FAILING,
    IDEMPOTENT,
    LONG_EFFECT,
    OVERDUE,
    PARALLEL,
    PLANNED,
    PURE,
    REJECTED,
    RETRIED,
    SLOW,
    Kind,
    Task,
    append,
    command,
)

VICTIMS = ("nats", "postgres", "valkey", "reflex", "planner", "orchestrator", "executor", "projections")

REGRETTED = Kind(
    name="regretted",
    ends=frozenset({"completed", "cancelled", "UNKNOWN_OUTCOME"}),
    is_cancelled=True,
    appends=1,
    steps=lambda: [
        command("wait", ["sleep", "0.3"]),
        append("record", after=("wait",)),
        command("show", ["cat", COUNTER], after=("record",)),
    ],
)

MIX: tuple[tuple[Kind, int], ...] = (
    (PURE, 5),
    (IDEMPOTENT, 4),
    (EFFECT, 5),
    (PARALLEL, 4),
    (PLANNED, 3),
    (SLOW, 4),
    (RETRIED, 2),
    (LONG_EFFECT, 2),
    (REGRETTED, 3),
    (FAILING, 2),
    (OVERDUE, 1),
    (CANCELLED, 1),
    (REJECTED, 1),
)
"""Kinds of tasks with their shares."""

PAUSE_S = (0.3, 1.5)
"""Between two kills."""


@dataclass
class Storm:
    """`seconds` of kills over `count` tasks. Who asks for what and who is killed when follows from `seed`."""

    seed: int
    seconds: float
    count: int
    tasks: list[Task] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    async def rage(self, rig: Rig) -> None:
        """Returns when it is over: everything runs again, and every user has been answered."""
        rng = random.Random(self.seed)
        kinds = rng.choices([kind for kind, _ in MIX], [share for _, share in MIX], k=self.count)
        self.tasks = [Task(kind) for kind in kinds]
        async with asyncio.TaskGroup() as world:
            for task in self.tasks:
                world.create_task(self._use(rig, task, rng.uniform(0, self.seconds), rng.choice(("bus", "http")), rng))
            world.create_task(self._kill(rig, random.Random(rng.random())))
        for name in VICTIMS:
            await rig.stack.ready(name, 60.0)

    async def _use(self, rig: Rig, task: Task, at_s: float, channel: Channel, rng: random.Random) -> None:
        regret_s = rng.uniform(0, 1.5)
        await asyncio.sleep(at_s)
        await rig.submit(task, channel)
        if task.kind.is_cancelled:
            await rig.has(task, "task.received")
            await asyncio.sleep(regret_s)
            await rig.cancel(task)

    async def _kill(self, rig: Rig, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while loop.time() < end:
            await asyncio.sleep(rng.uniform(*PAUSE_S))
            victim = rng.choice(VICTIMS)
            try:
                await rig.stack.kill(victim)
            except NotReady:
                continue  # it is dead already
            self.kills[victim] += 1

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {self.kills[name]}" for name in VICTIMS)
        return f"seed {self.seed}, {self.seconds:g} s, {self.count} tasks, {self.kills.total()} kills ({kills})"
