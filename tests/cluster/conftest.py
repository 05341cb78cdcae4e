"""The broker of these tests: one server, and three of them with three replicas of every stream."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.broker import Broker


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=[1, 3], ids=["one node", "three nodes"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    async with Broker(request.param) as running:
        yield running
