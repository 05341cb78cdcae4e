"""A broker whose answers can be lost."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.events.proxy import LossyProxy


@pytest_asyncio.fixture
async def lossy(nats_url: str) -> AsyncIterator[tuple[LossyProxy, str]]:
    """The proxy and the URL to connect to."""
    proxy = LossyProxy(nats_url)
    yield proxy, await proxy.start()
    await proxy.stop()
