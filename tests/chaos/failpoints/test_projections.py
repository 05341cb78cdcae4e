"""The projector dies between the batch that it reads and the checkpoint that it commits."""

import pytest

from tests.chaos.failpoints.conftest import Survived
from tests.chaos.failpoints.crash import USUAL, Crash
from tests.chaos.failpoints.rebuilding import rebuilt
from tests.chaos.failpoints.rig import Rig
from tests.chaos.failpoints.workload import Task

pytestmark = pytest.mark.asyncio(loop_scope="module")

CRASHES = [
    Crash("projections.read"),
    Crash("projections.read:4", once_ready=True),
    Crash("projections.written"),
    Crash("projections.written:5", once_ready=True),
    Crash("projections.committed"),
    Crash("projections.committed:3", once_ready=True),
]


@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_the_view_is_the_fold_again(survives: Survived, crash: Crash) -> None:
    await survives(crash)


@pytest.mark.parametrize("point", ["projections.written", "projections.committed"])
async def test_a_rebuild_that_is_killed_is_done_again(rig: Rig, point: str) -> None:
    tasks = [Task(kind) for kind in USUAL]
    for task in tasks:
        await rig.submit(task, "http")
    await rig.ended(tasks)
    assert await rebuilt(rig, point) == []
