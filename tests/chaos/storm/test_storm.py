"""Two hundred tasks while everything is killed at random for a minute: each ends once, and nothing is done twice.

`OCTO_STORM_SEED` repeats a storm, as far as the world lets itself be repeated.
"""

import os
import random
from collections.abc import Callable

import pytest

from tests.chaos.failpoints.rebuilding import rebuilt
from tests.chaos.failpoints.rig import rig
from tests.chaos.failpoints.verdict import judge
from tests.chaos.storm.weather import Storm

SECONDS = 60.0
TASKS = 200
CALM_S = 120.0
"""Within which all has to end once nothing is killed any more."""


@pytest.mark.timeout(400)
async def test_every_task_ends_once_whatever_is_killed(record_property: Callable[[str, object], None]) -> None:
    seed = int(os.environ.get("OCTO_STORM_SEED") or random.SystemRandom().randrange(10**6))
    storm = Storm(seed, SECONDS, TASKS)
    print(f"storm of seed {seed}")
    async with rig() as running:
        await storm.rage(running)
        await running.ended(storm.tasks, CALM_S)
        verdict = await judge(running, storm.tasks, runs_at_most=None)
        faults = verdict.faults + await rebuilt(running)
    record_property("chaos", f"storm: {storm}\n  {verdict}")
    print(f"{storm}\n{verdict}")
    assert storm.kills.total() > 0
    assert not faults, f"{storm}\n" + "\n".join(faults)
