"""What the simulation has found once, it finds again: each correction, taken back, shows."""

import pytest

from tests.chaos.simulation.bugs import DEFECTS
from tests.chaos.simulation.sweep import first_broken

BOUND = 800
"""Seeds within which it has to show."""


@pytest.mark.no_cover
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_correction_that_is_taken_back_is_missed(name: str) -> None:
    parts, faults = DEFECTS[name]
    broken = first_broken(parts, range(BOUND), faults)
    assert broken is not None, f"{name}: not found in {BOUND} seeds"
    print(f"{name}: seed {broken.seed}: {broken.violations[0]}")
