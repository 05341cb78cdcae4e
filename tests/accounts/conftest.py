"""A broker as `octo up` starts it, and connections of each account that see what the broker refuses them."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from octollm.stack import Stack, StackOptions

SERVICES = ("reflex", "orchestrator", "planner", "executor", "projections")
ACCOUNTS = (*SERVICES, "operator", "client")


class Account:
    """One connection of an account, without this project's own client code."""

    def __init__(self, name: str, client: Client, errors: "Errors") -> None:
        self.name = name
        self.client = client
        self.errors = errors

    async def refused(
        self, subject: str, body: bytes = b"{}", reply: str = "", headers: dict[str, str] | None = None
    ) -> float | None:
        """Publishes; after how many seconds the broker refused it, None when it took it."""
        began = time.monotonic()
        await self.client.publish(subject, body, reply=reply or self.client.new_inbox(), headers=headers)
        told = await self._told(f'publish to "{subject}"')
        return told - began if told else None

    async def may_subscribe(self, subject: str) -> bool:
        """Subscribes for a moment."""
        subscription = await self.client.subscribe(subject)
        if await self._told(f'subscription to "{subject}"'):
            return False
        await subscription.unsubscribe()
        return True

    async def _told(self, what: str) -> float | None:
        """When the broker refused it. Refusals come in order, so one that is certain shows that nothing more comes."""
        certain = f"nobody.may.{uuid.uuid4()}"
        await self.client.publish(certain)
        async with asyncio.timeout(5):
            while not self.errors.told(certain):
                self.errors.more.clear()
                await self.errors.more.wait()
        return self.errors.told(what)

    async def ask(self, subject: str, body: bytes = b"{}", headers: dict[str, str] | None = None) -> Msg:
        """A request that is answered; what a pull delivers comes under its own subject, so each has an inbox."""
        inbox = self.client.new_inbox()
        answers = await self.client.subscribe(inbox)
        await self.client.publish(subject, body, reply=inbox, headers=headers)
        answer = await answers.next_msg(5)
        await answers.unsubscribe()
        return answer


class Errors:
    """What the broker refuses, and when it said so."""

    def __init__(self) -> None:
        self._said: list[tuple[str, float]] = []
        self.more = asyncio.Event()

    async def note(self, error: Exception) -> None:
        self._said.append((str(error), time.monotonic()))
        self.more.set()

    def told(self, what: str) -> float | None:
        """The moment of the last refusal that names it; the client library has put it in small letters."""
        return next((moment for text, moment in reversed(self._said) if what.lower() in text), None)


async def connect(url: str, name: str, key: Path | None) -> Account:
    errors = Errors()
    seed = {"nkeys_seed": str(key)} if key else {}
    client = await nats.connect(
        url, name=name, error_cb=errors.note, inbox_prefix=f"_INBOX_{name}".encode(), allow_reconnect=False, **seed
    )
    return Account(name, client, errors)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    options = StackOptions(ephemeral=True, ports="free", servers=frozenset({"nats"}), services=())
    async with Stack(options) as running:
        yield running


Connect = Callable[[str], Awaitable[Account]]


@pytest_asyncio.fixture
async def account(stack: Stack) -> AsyncIterator[Connect]:
    """Connects as an account; `client` is whoever has no key."""
    async with AsyncExitStack() as exits:

        async def opened(name: str) -> Account:
            key = None if name == "client" else stack.nkey_file(name)
            found = await connect(stack.nats_url, name, key)
            exits.push_async_callback(found.client.close)
            return found

        yield opened


@pytest_asyncio.fixture
async def stored(account: Connect) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What the streams and durable consumers hold, as the broker tells the operator."""
    operator = await account("operator")

    async def ask() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for stream in ("COMMANDS", "EVENTS", "TIMERS", "OBJ_ARTIFACTS", "KV_ATTEMPTS", "ADVISORY"):
            info = json.loads((await operator.ask(f"$JS.API.STREAM.INFO.{stream}", b'{"subjects_filter":">"}')).data)
            state = info["state"]
            found[stream] = (state["last_seq"], state["messages"], state["consumer_count"], state.get("subjects"))
        return found

    return ask
