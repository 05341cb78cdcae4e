"""A service dies at a fail point while tasks are under way, and is started again as the supervisor does it."""

import asyncio
from dataclasses import dataclass

from tests.chaos.failpoints.rig import Channel, Rig
from tests.chaos.failpoints.verdict import Verdict, judge
from tests.chaos.failpoints.workload import EFFECT, IDEMPOTENT, PARALLEL, PURE, Kind, Task

USUAL = (PURE, IDEMPOTENT, EFFECT, PARALLEL)


@dataclass(frozen=True)
class Crash:
    """Where a service dies (`<service>.<point>[:n]`), and what is asked of the system meanwhile.

    `first`: a point of the same service at which it dies before: what it leaves behind is what leads to `point`.
    `once_ready`: users come when the service is ready to die, rather than while it starts.
    """

    point: str
    kinds: tuple[Kind, ...] = USUAL
    channel: Channel = "bus"
    first: str | None = None
    once_ready: bool = False

    @property
    def service(self) -> str:
        """Who dies."""
        return self.point.partition(".")[0]

    def __str__(self) -> str:
        before = f"{self.first} then " if self.first else ""
        return f"{before}{self.point} ({self.channel})"


async def crashed(rig: Rig, crash: Crash) -> Verdict:
    """Carries it out; returns what it came to."""
    tasks = [Task(kind) for kind in crash.kinds]
    await rig.stack.ready(crash.service)
    await rig.arm(crash.service, crash.first or crash.point)
    if crash.once_ready:
        await rig.stack.ready(crash.service)
    async with asyncio.TaskGroup() as users:
        for task in tasks:
            users.create_task(_use(rig, task, crash.channel))
        await rig.died(crash.service)
        if crash.first:
            await rig.arm(crash.service, crash.point)
            await rig.died(crash.service)
    await rig.ended(tasks)
    # Only what died with its arm may run again.
    return await judge(rig, tasks, runs_at_most=2 if crash.service == "executor" else 1)


async def _use(rig: Rig, task: Task, channel: Channel) -> None:
    await rig.submit(task, channel)
    if task.kind.is_cancelled:
        await rig.has(task, "step.dispatched")
        await rig.cancel(task)
