"""Loopback servers in place of a model's endpoint and of reflex."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.planner.chat import GOOD_PLAN, error, said
from tests.planner.http_stub import HttpStub, Reply, Request


def _chat(request: Request) -> Reply:
    return said(GOOD_PLAN) if request.path == "/v1/chat/completions" else error(404)


def _reflex(request: Request) -> Reply:
    if request.path == "/health":
        return Reply(body={"status": "ok"})
    if request.path != "/api/v1/reflex/process" or request.body.get("role") != "plan":
        return Reply(status=404, body={})
    return Reply(body={"redacted": request.body["text"].replace("ann@example.com", "[EMAIL_1]")})


@pytest_asyncio.fixture
async def chat() -> AsyncIterator[HttpStub]:
    """An endpoint of the OpenAI chat protocol that answers with a good plan unless scripted."""
    async with HttpStub(_chat) as server:
        yield server


@pytest_asyncio.fixture
async def reflex() -> AsyncIterator[HttpStub]:
    """Reflex's screen: knows one e-mail address."""
    async with HttpStub(_reflex) as server:
        yield server
