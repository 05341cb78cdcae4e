"""Reflex dies between what it takes, from the bus or by HTTP, and what it answers."""

import pytest

from tests.chaos.failpoints.conftest import Survived
from tests.chaos.failpoints.crash import USUAL, Crash
from tests.chaos.failpoints.workload import CANCELLED, REJECTED

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITH_REFUSAL = (*USUAL, REJECTED)

CRASHES = [
    Crash("reflex.taken:2", WITH_REFUSAL),
    Crash("reflex.screened:3", WITH_REFUSAL),
    Crash("reflex.kept", WITH_REFUSAL),
    Crash("reflex.appended", WITH_REFUSAL),
    Crash("reflex.appended:4", WITH_REFUSAL),
    Crash("reflex.answered:2", WITH_REFUSAL),
    Crash("reflex.screened:2", USUAL, "http"),
    Crash("reflex.kept", USUAL, "http"),
    Crash("reflex.appended:3", USUAL, "http"),
    Crash("reflex.command_stored", (CANCELLED, *USUAL), "http"),
]


@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_every_task_ends_as_it_should(survives: Survived, crash: Crash) -> None:
    await survives(crash)
