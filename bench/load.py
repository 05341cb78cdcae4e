"""Load: tasks submitted and waited for, so many in flight at once."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from octollm.events import bus
from octollm.events.envelope import TERMINAL

TASK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latencies in milliseconds, and how many were done per second."""

    latencies_ms: list[float]
    per_second: float


async def measure(one: Callable[[], Awaitable[None]], count: int, in_flight: int) -> Measurement:
    """Runs `one` so many times, never more than `in_flight` at once; as soon as one ends the next begins."""
    latencies: list[float] = []
    left = count

    async def worker() -> None:
        nonlocal left
        while left:
            left -= 1
            began = time.perf_counter()
            await one()
            latencies.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(min(in_flight, count))))
    return Measurement(latencies, count / (time.perf_counter() - began))


class Tasks:
    """Submits tasks by `task.submit` and hears of their ends, as `nats req` and `nats sub 'task.completed.*'` do."""

    def __init__(self, client: bus.Client) -> None:
        self._client = client
        self._ends: dict[str, asyncio.Future[tuple[str, int]]] = {}

    async def listen(self) -> None:
        """Hear of every end from now on."""
        for kind in sorted(TERMINAL):
            await self._client.subscribe(f"log.{kind}.*", cb=self._ended)
        await self._client.flush()

    async def _ended(self, message: Msg) -> None:
        heard = time.time_ns()
        kind, _, task_id = message.subject.removeprefix("log.").rpartition(".")
        if future := self._ends.pop(task_id, None):
            future.set_result((kind, heard))

    async def run(self, plan: dict[str, Any]) -> tuple[str, int, int]:
        """A task from its submission to its end: its id, and when it was submitted and its end heard of (ns, Unix)."""
        task_id = str(uuid.uuid4())
        ended = self._ends[task_id] = asyncio.get_running_loop().create_future()
        submission = {"goal": "Measure the pipeline", "task_id": task_id, "plan": plan}
        began = time.time_ns()
        answer = json.loads(
            (await self._client.request("task.submit", json.dumps(submission).encode(), timeout=5)).data
        )
        if error := answer.get("error"):
            raise SystemExit(f"task.submit was refused: {error['description']}")
        async with asyncio.timeout(TASK_SECONDS):
            outcome, heard = await ended
        if outcome != "task.completed":
            raise SystemExit(f"task {task_id} ended as {outcome}")
        return task_id, began, heard

    async def stored(self) -> dict[str, int]:
        """Messages ever stored, by stream."""
        found = {}
        for stream in ("COMMANDS", "EVENTS", "TIMERS"):
            info = json.loads((await self._client.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)
            found[stream] = info["state"]["last_seq"]
        return found


def linear_plan(steps: int) -> dict[str, Any]:
    """A plan of so many `true`, each after the one before."""
    return {
        "steps": [
            {
                "id": f"step-{number}",
                "action": {"kind": "command", "pipeline": [["true"]]},
                "effect": "pure",
                "depends_on": [f"step-{number - 1}"] if number > 1 else [],
            }
            for number in range(1, steps + 1)
        ]
    }
