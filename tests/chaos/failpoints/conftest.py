"""A system of the module's own; its tests kill parts of it one after another."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.chaos.failpoints.crash import Crash, crashed
from tests.chaos.failpoints.rig import Rig, rig

Survived = Callable[[Crash], Awaitable[None]]


@pytest_asyncio.fixture(name="rig", scope="module", loop_scope="module")
async def _rig() -> AsyncIterator[Rig]:
    async with rig() as running:
        yield running


@pytest.fixture
def survives(rig: Rig, record_property: Callable[[str, object], None]) -> Survived:
    """Has a service die and fails with whatever does not hold afterwards."""

    async def check(crash: Crash) -> None:
        verdict = await crashed(rig, crash)
        record_property("chaos", f"{crash!s:55} {verdict}")
        assert not verdict.faults, "\n".join(verdict.faults)

    return check
