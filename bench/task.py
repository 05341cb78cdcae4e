"""How long a two-step task takes, and what it writes: `python -m bench.task`.

Tasks enter by `task.submit` with a plan of their own: two `true` steps in the real sandbox, one after the other.
The clock runs from the publish to the stored `task.completed` as a follower of the log sees it; fsync is on.
"""

import asyncio
import json
import time
import uuid

from bench.machine import describe, percentiles
from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.events.envelope import TERMINAL
from octollm.events.log import Log
from octollm.stack import Stack, StackOptions

PLAN = {
    "steps": [
        {"id": "one", "action": {"kind": "command", "pipeline": [["true"]]}, "effect": "pure"},
        {"id": "two", "action": {"kind": "command", "pipeline": [["true"]]}, "effect": "pure", "depends_on": ["one"]},
    ]
}
WARM_UP, ALONE, MANY = 10, 100, 300


class Tasks:
    """Submits tasks and waits for their ends."""

    def __init__(self, client: bus.Client) -> None:
        self._client = client
        self._ends: dict[str, asyncio.Future[str]] = {}

    async def follow(self) -> None:
        async for event in Log(self._client, "bench").follow(1, tuple(f"{kind}.*" for kind in sorted(TERMINAL))):
            if future := self._ends.pop(event.task_id, None):
                future.set_result(event.kind)

    async def run(self) -> float:
        """Milliseconds of one task."""
        task_id = str(uuid.uuid4())
        ended = self._ends[task_id] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        submission = {"goal": "Do nothing twice", "task_id": task_id, "plan": PLAN}
        await self._client.request("task.submit", json.dumps(submission).encode(), timeout=5)
        async with asyncio.timeout(60):
            outcome = await ended
        if outcome != "task.completed":
            raise SystemExit(f"task {task_id} ended as {outcome}")
        return (time.monotonic() - began) * 1000

    async def messages(self) -> dict[str, int]:
        """Messages ever stored, by stream."""
        found = {}
        for stream in ("COMMANDS", "EVENTS", "TIMERS"):
            info = json.loads((await self._client.request(f"$JS.API.STREAM.INFO.{stream}", b"")).data)
            found[stream] = info["state"]["last_seq"]
        return found


async def main() -> None:
    print(describe())
    async with Stack(StackOptions(ephemeral=True, ports="free")) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file()), "bench")
        tasks = Tasks(client)
        following = asyncio.create_task(tasks.follow())
        for _ in range(WARM_UP):
            await tasks.run()
        before = await tasks.messages()
        alone = [await tasks.run() for _ in range(ALONE)]
        after = await tasks.messages()
        print(f"two-step task, one in flight: {percentiles(alone)}")
        stored = {stream: (after[stream] - before[stream]) / ALONE for stream in after}
        print("messages stored per task:", ", ".join(f"{stream} {count:.2f}" for stream, count in stored.items()))
        for in_flight in (16, 100):
            gate = asyncio.Semaphore(in_flight)

            async def one(gate: asyncio.Semaphore = gate) -> float:
                async with gate:
                    return await tasks.run()

            began = time.monotonic()
            many = await asyncio.gather(*(one() for _ in range(MANY)))
            rate = MANY / (time.monotonic() - began)
            print(f"two-step task, {in_flight} in flight: {percentiles(list(many))}  {rate:.0f} tasks/s")
        following.cancel()
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
