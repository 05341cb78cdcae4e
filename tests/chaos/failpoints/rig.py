"""The whole system on real servers, as its users and its operator meet it, and a hand that kills parts of it."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from nats import errors as nats_errors

from octollm.events import bus, direct
from octollm.events.config import NatsSettings
from octollm.events.direct import DirectGetFailed, Stored
from octollm.events.envelope import TERMINAL
from octollm.events.log import STREAM
from octollm.events.streams import definitions
from octollm.stack import NotReady, Progress, Stack, StackOptions, State
from octollm.stack.options import ensure_streams
from tests.chaos.failpoints.workload import Task

Channel = Literal["bus", "http"]

PATIENCE_S = 60.0
"""For anything that has to happen; a loaded machine needs some of it."""

_ACK_WAIT_S = 1
_POLL_S = 0.05


async def until(condition: Callable[[], Awaitable[Any]], what: Callable[[], str], seconds: float = PATIENCE_S) -> Any:
    """The condition's first true value; fails after the deadline, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
        await asyncio.sleep(_POLL_S)
    return value


async def impatient_streams(url: str, nkey_file: Path | None) -> None:
    """The streams as they are everywhere, but that the broker waits a second for an answer, so that a test need not."""
    await ensure_streams(url, nkey_file)
    client = await bus.connect(NatsSettings(url=url, nkey_file=nkey_file), "bootstrap", PATIENCE_S)
    for wanted in definitions()["consumers"]:
        stream, durable = wanted["stream"], wanted["durable_name"]
        config = {key: value for key, value in wanted.items() if key != "stream"} | {"ack_wait": _ACK_WAIT_S * 10**9}
        body = json.dumps({"stream_name": stream, "config": config}).encode()
        answer = await client.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{durable}", body, timeout=10)
        assert "error" not in json.loads(answer.data), answer.data
    await client.close()


@dataclass
class Rig:
    """A stack, its users (NATS without a key, and HTTP) and its operator, who reads the log."""

    stack: Stack
    deaths: Counter[str]
    _users: bus.Client
    _operator: bus.Client
    _expected: Counter[str] = field(default_factory=Counter)
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=5.0))
    _read: list[Stored] = field(default_factory=list)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def close(self) -> None:
        """Ends the connections of users and operator."""
        await self._users.close()
        await self._operator.close()
        await self._http.aclose()

    # What users do.

    async def submit(self, task: Task, channel: Channel) -> None:
        """Asks until it is accepted, under the same id, as somebody does who gets no answer."""
        if channel == "bus":
            await self._ask(lambda: self._by_bus(task), f"task.submit of {task.kind.name} {task.id} is stored")
        else:
            await self._ask(lambda: self._by_http(task), f"POST of {task.kind.name} {task.id} is accepted")

    async def cancel(self, task: Task) -> None:
        """Asks until the command is stored."""
        url = f"{self.stack.url('reflex')}/api/v1/tasks/{task.id}/cancel"
        await self._ask(lambda: self._posted(url, {"reason": "no longer needed"}), f"cancel of {task.id} is stored")

    async def _ask(self, ask: Callable[[], Awaitable[bool]], what: str) -> None:
        await until(ask, lambda: what)

    async def _by_bus(self, task: Task) -> bool:
        try:
            answer = await self._users.request("task.submit", json.dumps(task.submission).encode(), timeout=1)
        except (nats_errors.Error, TimeoutError, OSError):
            return False
        return "error" not in json.loads(answer.data)

    async def _by_http(self, task: Task) -> bool:
        return await self._posted(f"{self.stack.url('reflex')}/api/v1/tasks", task.submission)

    async def _posted(self, url: str, body: Any) -> bool:
        try:
            answer = await self._http.post(url, json=body)
        except httpx.HTTPError:
            return False
        if answer.status_code >= 500:
            return False
        assert answer.status_code in (202, 422), answer.text
        return True

    async def view(self, task: Task) -> Any:
        """The task as the REST view shows it, or None while the view can't."""
        try:
            answer = await self._http.get(f"{self.stack.url('projections')}/api/v1/tasks/{task.id}")
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    # What the operator sees.

    async def log(self) -> list[Stored]:
        """Every stored message, as far as the broker tells now."""
        async with self._reading:
            more = 1
            while more:
                first = self._read[-1].seq + 1 if self._read else 1
                with contextlib.suppress(DirectGetFailed, nats_errors.Error):
                    messages, more = await direct.batch(self._operator, STREAM, ">", first, 256, 2.0)
                    self._read += messages
                    continue
                break
            return list(self._read)

    async def ended(self, tasks: Iterable[Task], seconds: float = PATIENCE_S) -> None:
        """Returns when the last event of each task is terminal."""
        left = {task.id: task for task in tasks}

        async def none_left() -> bool:
            for message in await self.log():
                kind, _, task_id = message.subject.rpartition(".")
                if kind in TERMINAL:
                    left.pop(task_id, None)
            return not left

        def missing() -> str:
            facts = {
                task_id: [m.subject.rpartition(".")[0] for m in self._read if task_id in m.subject] for task_id in left
            }
            return "an end of " + "; ".join(f"{left[one].kind.name} {one}: {facts[one]}" for one in facts)

        await until(none_left, missing, seconds)

    async def has(self, task: Task, kind: str) -> None:
        """Returns when such an event is in the task's log."""

        async def found() -> bool:
            return any(message.subject == f"{kind}.{task.id}" for message in await self.log())

        await until(found, lambda: f"{kind} of {task.kind.name} {task.id}")

    def effects(self, task: Task) -> int:
        """Starts of the task's steps with side effects, by the executor's own log."""
        starts = (line for line in self.logged("executor") if line.get("message") == "the step starts")
        return sum(line["effect"] == "side_effecting" and task.id in line["attempt"] for line in starts)

    def logged(self, service: str) -> list[Any]:
        """What a service wrote, those of its processes that were killed included."""
        lines = (self.stack.data_dir / "logs" / f"{service}.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    # What goes wrong.

    async def arm(self, service: str, fail_point: str) -> None:
        """Kills a service, and has the process that takes its place die at a fail point."""

        async def killed() -> bool:
            try:
                await self.stack.kill(service, fail_point=fail_point)
            except NotReady:
                return False  # it is dead just now
            return True

        await until(killed, lambda: f"{service} runs")
        self._expected[service] = self.deaths[service] + 1

    async def died(self, service: str) -> None:
        """Returns when the armed process has died."""

        async def dead() -> bool:
            return self.deaths[service] >= self._expected[service]

        await until(dead, lambda: f"the death of {service} at its fail point; does its build have fail points?")


@contextlib.asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    """Everything running, on free ports, with accounts and fsync as `octo up` has them."""
    deaths: Counter[str] = Counter()

    def told(progress: Progress) -> None:
        if progress.state is State.RESTARTING:
            deaths[progress.name] += 1

    chosen: dict[str, Any] = {"ephemeral": True, "ports": "free", "bootstrap": impatient_streams, "progress": told}
    async with Stack(StackOptions(**(chosen | options))) as stack:
        users = await bus.connect(NatsSettings(url=stack.nats_url), "nats-cli", PATIENCE_S)
        operator = NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file())
        made = Rig(stack, deaths, users, await bus.connect(operator, "operator", PATIENCE_S))
        try:
            yield made
        finally:
            await made.close()
            await stack.stop(now=True)
