"""Part 4 of the sweep of two thousand seeds."""

import pytest

from tests.chaos.simulation.sweep import check, part


@pytest.mark.no_cover
@part(4)
def test_every_invariant_holds_whatever_goes_wrong(seeds: range) -> None:
    check(seeds)
