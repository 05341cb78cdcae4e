"""One nats-server, or three of them as one cluster on this machine: servers that a test may kill."""

import asyncio
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import nats as nats_client

from octollm.events import bus, chain, direct, streams
from octollm.events.config import NatsSettings
from octollm.events.log import STREAM
from octollm.stack import GaveUp, logs, nats, services
from octollm.stack.ports import Ports
from octollm.stack.supervisor import Supervisor

DEADLINE_S = 60.0
"""An election takes up to 10 s on a quiet machine."""


class Broker:
    """`size` servers, each with a store of its own, fsync before every ack, and every stream on all of them.

    A server that is killed comes back by itself, as those of `octo up` do.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ports = Ports("free")
        self._servers: dict[str, Supervisor] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        home = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="octollm-cluster-")))
        self._exits.callback(self._ports.release)
        self._exits.push_async_callback(self._stop)
        names = [f"nats-{number}" for number in range(1, self.size + 1)]
        routes = [self._ports.free() for _ in names]
        for name, route in zip(names, routes, strict=True):
            directory = home / name
            (directory / "keys").mkdir(parents=True)
            program = nats.program(
                directory,
                port=self._ports.free(),
                monitor=self._ports.free(),
                fsync=True,
                keys_dir=directory / "keys",
                with_accounts=False,
                environment=services.inherited({}),
                binary=None,
                member=nats.Member(name=name, port=route, routes=routes) if self.size > 1 else None,
            )
            log = logs.log_file(home, name)
            self._servers[name] = Supervisor(program, log, time.monotonic(), lambda *_: None, _gave_up)
        try:
            await asyncio.gather(*(server.start(DEADLINE_S) for server in self._servers.values()))
            await streams.ensure(NatsSettings(url=self.urls[0], replicas=self.size))
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _stop(self) -> None:
        await asyncio.gather(*(server.stop(asyncio.Event()) for server in self._servers.values()))

    @property
    def urls(self) -> list[str]:
        """Where clients connect, server by server."""
        return [self.url(name) for name in self._servers]

    def url(self, name: str) -> str:
        return self._servers[name].program.address

    async def leader(self) -> str:
        """The server that leads the log's stream."""
        info = await self._info()
        return str(info["cluster"]["leader"]) if self.size > 1 else next(iter(self._servers))

    async def follower(self) -> str:
        """A server that does not, where there is one."""
        leader = await self.leader()
        return next((name for name in self._servers if name != leader), leader)

    async def kill(self, name: str) -> None:
        """As a crash would (SIGKILL)."""
        await self._servers[name].kill(signal.SIGKILL)

    async def whole(self) -> None:
        """Returns when every server runs and has all that the log's leader has."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(server.ready(DEADLINE_S) for server in self._servers.values()))
            while not _is_whole(await self._info(), self.size):
                await asyncio.sleep(0.05)

    async def _info(self) -> dict[str, Any]:
        """What the leader of the log's stream says of it; waits until there is one."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(nats_client.errors.Error, OSError):
                    client = await nats_client.connect(self.urls, max_reconnect_attempts=1, error_cb=_expected)
                    try:
                        answer = await client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout=1)
                    finally:
                        await client.close()
                    info: dict[str, Any] = json.loads(answer.data)
                    if "error" not in info and (self.size == 1 or info["cluster"].get("leader")):
                        return info
                await asyncio.sleep(0.05)

    async def report(self, task_ids: Iterable[str]) -> list[chain.Report]:
        """What each server has stored of these tasks, as `octo verify` judges it."""
        await self.whole()
        return [await _report(url, list(task_ids)) for url in self.urls]


def _is_whole(info: dict[str, Any], size: int) -> bool:
    replicas = info.get("cluster", {}).get("replicas", [])
    return len(replicas) == size - 1 and all(row["current"] and not row.get("lag") for row in replicas)


async def _expected(_: Exception) -> None:
    """A server that was killed is not there."""


async def _report(url: str, task_ids: Iterable[str]) -> chain.Report:
    client = await bus.connect(NatsSettings(url=url), "test")
    chains = chain.Chains()
    try:
        for task_id in task_ids:
            await _take(client, task_id, chains)
    finally:
        await client.close()
    tasks = tuple(chains.reports())
    return chain.Report(
        intact=all(task.intact for task in tasks), events=sum(task.events for task in tasks), tasks=tasks
    )


async def _take(client: bus.Client, task_id: str, chains: chain.Chains) -> None:
    first, more = 1, 1
    while more:
        messages, more = await direct.batch(client, STREAM, f"*.*.{task_id}", first, 256, 10)
        for message in messages:
            chains.take(
                chain.Message(
                    seq=message.seq,
                    subject=message.subject,
                    headers=message.headers,
                    body=message.data,
                    stored_at=message.stored_at.isoformat(),
                )
            )
            first = message.seq + 1


def _gave_up(failure: GaveUp) -> None:
    raise failure
