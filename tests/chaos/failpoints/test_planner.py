"""The planner dies between the task that it takes and the plan on record; a model writes one of the plans."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.failpoints.conftest import Survived
from tests.chaos.failpoints.crash import USUAL, Crash
from tests.chaos.failpoints.rig import Rig, rig
from tests.chaos.failpoints.workload import PLANNED
from tests.planner.chat import GOOD_PLAN, said
from tests.planner.http_stub import HttpStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITH_MODEL = (PLANNED, *USUAL)

CRASHES = [
    Crash("planner.taken", WITH_MODEL),
    Crash("planner.taken:3", WITH_MODEL),
    Crash("planner.answered", WITH_MODEL),
    Crash("planner.planned:2", WITH_MODEL),
    Crash("planner.appended", WITH_MODEL),
    Crash("planner.appended:5", WITH_MODEL),
    Crash("planner.acked:2", WITH_MODEL),
    Crash("planner.read", WITH_MODEL, first="planner.appended:2"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat() -> AsyncIterator[HttpStub]:
    async with HttpStub(otherwise=lambda _: said(GOOD_PLAN)) as stub:
        yield stub


@pytest_asyncio.fixture(name="rig", scope="module", loop_scope="module")
async def _rig(chat: HttpStub) -> AsyncIterator[Rig]:
    environment = {
        "OCTO_PLANNER__PROVIDER": "openai",
        "OCTO_PLANNER__MODEL": "gpt-4o-mini",
        "OCTO_PLANNER__BASE_URL": f"{chat.url}/v1",
        "OPENAI_API_KEY": "sk-canary-0123456789",
    }
    async with rig(environment=environment) as running:
        yield running


@pytest.mark.parametrize("crash", CRASHES, ids=str)
async def test_every_task_ends_as_it_should(survives: Survived, crash: Crash, chat: HttpStub) -> None:
    chat.requests.clear()
    await survives(crash)
    deaths = 2 if crash.first else 1
    assert 1 <= len(chat.requests) <= 1 + deaths, "what is on record is never bought again"
