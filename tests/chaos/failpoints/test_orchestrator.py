"""The orchestrator dies between what it takes and what it answers for."""

import pytest

from tests.chaos.failpoints.conftest import Survived
from tests.chaos.failpoints.crash import USUAL, Crash
from tests.chaos.failpoints.workload import CANCELLED, FAILING, OVERDUE, PLANNED, RETRIED

pytestmark = pytest.mark.asyncio(loop_scope="module")

CRASHES = [
    Crash("orchestrator.event_taken"),
    Crash("orchestrator.event_taken:7"),
    Crash("orchestrator.decided:2"),
    Crash("orchestrator.appended"),
    Crash("orchestrator.appended:2"),
    Crash("orchestrator.appended:6", (*USUAL, FAILING, PLANNED)),
    Crash("orchestrator.timer_set:3"),
    Crash("orchestrator.answered:5"),
    Crash("orchestrator.read:2", first="orchestrator.appended:3"),
    Crash("orchestrator.command_taken", (CANCELLED, *USUAL)),
    Crash("orchestrator.timer_taken", (OVERDUE, *USUAL)),
    Crash("orchestrator.timer_taken", (RETRIED,), "http"),
    Crash("orchestrator.appended:7", (RETRIED, RETRIED), "http"),
    Crash("orchestrator.recovered", first="orchestrator.appended:3"),
]


@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_every_task_ends_as_it_should(survives: Survived, crash: Crash) -> None:
    await survives(crash)
