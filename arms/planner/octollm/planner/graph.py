"""Dependencies between steps as a graph."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

Dependencies = Mapping[str, Sequence[str]]
"""Step id → ids of the steps that must have succeeded before. Ids that aren't steps are ignored."""


class Cycle(ValueError):
    """The dependencies form a cycle. `path` names it in the order of waiting, the first step repeated at its end."""

    def __init__(self, path: list[str]) -> None:
        super().__init__(" → ".join(path))
        self.path = path


def ancestors(dependencies: Dependencies) -> dict[str, set[str]]:
    """All that each step depends on, directly or not. Raises Cycle."""
    known = {step: [other for other in needs if other in dependencies] for step, needs in dependencies.items()}
    found: dict[str, set[str]] = {}
    try:
        for step in TopologicalSorter(known).static_order():
            found[step] = set(known[step]).union(*(found[other] for other in known[step]))
    except CycleError as error:
        # graphlib names each step before the one that waits for it.
        raise Cycle(error.args[1][::-1]) from error
    return found


def leaves(dependencies: Dependencies) -> list[str]:
    """The steps that no other step depends on, in the plan's order."""
    needed = {other for needs in dependencies.values() for other in needs}
    return [step for step in dependencies if step not in needed]
