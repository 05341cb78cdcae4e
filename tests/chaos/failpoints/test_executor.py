"""The executor dies between the dispatch that it takes and the result on record, and in the middle of steps."""

from collections.abc import Callable

import pytest

from tests.chaos.failpoints.conftest import Survived
from tests.chaos.failpoints.crash import USUAL, Crash
from tests.chaos.failpoints.rig import Rig, until
from tests.chaos.failpoints.verdict import judge
from tests.chaos.failpoints.workload import LONG_EFFECT, OVERDUE, SLOW, Task

pytestmark = pytest.mark.asyncio(loop_scope="module")

CRASHES = [
    Crash("executor.taken"),
    Crash("executor.taken:6"),
    Crash("executor.claimed"),
    Crash("executor.claimed:2"),
    Crash("executor.started"),
    Crash("executor.started:4"),
    Crash("executor.ended"),
    Crash("executor.snapshot_kept"),
    Crash("executor.snapshot_kept:2"),
    Crash("executor.ended:3"),
    Crash("executor.settled"),
    Crash("executor.settled:5"),
    Crash("executor.answered:2"),
    Crash("executor.late", (OVERDUE, *USUAL), once_ready=True),
    Crash("executor.receipt_kept", (OVERDUE, *USUAL), once_ready=True),
]


@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_nothing_runs_twice_that_must_not(survives: Survived, crash: Crash) -> None:
    await survives(crash)


async def test_steps_that_run_when_their_arm_is_killed(
    rig: Rig, record_property: Callable[[str, object], None]
) -> None:
    slow, effect = tasks = [Task(SLOW), Task(LONG_EFFECT)]
    for task in tasks:
        await rig.submit(task, "http")

    async def running() -> bool:
        return rig.effects(effect) == 1 and any(slow.id in line.get("attempt", "") for line in rig.logged("executor"))

    await until(running, lambda: "both steps run")
    await rig.stack.kill("executor")
    await rig.ended(tasks)
    verdict = await judge(rig, tasks, runs_at_most=2)
    record_property("chaos", f"{'executor, while steps run':55} {verdict}")
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.outcomes["long side effect", "UNKNOWN_OUTCOME"] == 1
