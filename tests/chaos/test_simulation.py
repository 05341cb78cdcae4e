"""The simulation itself: a run follows from its seed, and what somebody could break is found.

A failure prints the seed and the run's history; `python -m tests.chaos.simulation <seed>` prints it again.
"""

import pytest

from tests.chaos.simulation.bugs import BUGS, CORRECT
from tests.chaos.simulation.simulation import run
from tests.chaos.simulation.sweep import first_broken

pytestmark = [
    pytest.mark.no_cover,  # tracing makes a run four times as long, and shows nothing that other tests don't
    pytest.mark.timeout(600),  # hundreds of runs, where a bug shows late and the machine is busy
]

BOUND = 800
"""Seeds within which a bug has to show."""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    broken = first_broken(BUGS[name], range(BOUND))
    assert broken is not None, f"{name}: not found in {BOUND} seeds"
    print(f"{name}: seed {broken.seed}: {broken.violations[0]}")


@pytest.mark.parametrize("seed", [3, 17, 86])
def test_a_seed_gives_the_same_run_again(seed: int) -> None:
    first, again = run(seed, BUGS["retry of a side effect"]), run(seed, BUGS["retry of a side effect"])
    assert first.report() == again.report()
    assert len(first.history) > 5


def test_another_seed_gives_another_run() -> None:
    assert run(1, CORRECT).history != run(2, CORRECT).history
