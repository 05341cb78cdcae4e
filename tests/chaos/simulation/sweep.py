"""Many runs, one after the other. One worker runs all tests of a file (`--dist loadfile`), so the sweep has several."""

import pytest

from tests.chaos.simulation.bugs import CORRECT
from tests.chaos.simulation.faults import Faults
from tests.chaos.simulation.simulation import Parts, Run, run

SEEDS = 500
"""Of a file; there are four."""

_CHUNK = 10


def first_broken(parts: Parts, seeds: range, faults: Faults | None = None) -> Run | None:
    """The run of the first seed that breaks an invariant."""
    runs = (run(seed, parts, faults) for seed in seeds)
    return next((broken for broken in runs if broken.violations), None)


def part(number: int) -> pytest.MarkDecorator:
    """Has a test called with every chunk of seeds of this part of the sweep, which counts from 1."""
    last = number * SEEDS
    chunks = [range(first, first + _CHUNK) for first in range(last - SEEDS, last, _CHUNK)]
    return pytest.mark.parametrize("seeds", chunks, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")


def check(seeds: range) -> None:
    """Every invariant holds in every one of these runs."""
    broken = first_broken(CORRECT, seeds)
    assert broken is None, broken.report()
