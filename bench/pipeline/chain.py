"""The floor: as many publishes as a task costs, on the same broker with the same settings, and nothing else.

Every publish waits for the one before it, names the sequence that it follows (the check runs over the task's wildcard,
as for an event) and carries a message id. Two forms: `awaited`, one process that awaits each acknowledgement, and
`ping-pong`, two processes that answer each other's messages through the services' own durable consumers, which is what
a pipeline of services can't be faster than. Neither reads an envelope, validates or hashes.
"""

import asyncio
import uuid

import msgspec

from bench.load import Measurement, measure
from octollm.events import bus
from octollm.events.pull import Pull

BODY = bytes(700)
"""About what an event of the measured task takes besides the guards: 850 bytes with envelope, in the mean."""


def guards(task_id: str, seq: int) -> dict[str, str]:
    """The headers of an append after stream sequence `seq`."""
    return {
        "Nats-Msg-Id": str(uuid.uuid4()),
        "Nats-Expected-Last-Subject-Sequence": str(seq),
        "Nats-Expected-Last-Subject-Sequence-Subject": f"*.*.{task_id}",
    }


async def awaited(client: bus.Client, publishes: int, count: int, in_flight: int) -> Measurement:
    """Chains of acknowledged publishes; `client` is the orchestrator's account."""

    async def chain() -> None:
        task_id, seq = str(uuid.uuid4()), 0
        for _ in range(publishes):
            answer = await client.request(f"step.dispatched.{task_id}", BODY, timeout=10, headers=guards(task_id, seq))
            seq = msgspec.json.decode(answer.data)["seq"]

    return await measure(chain, count, in_flight)


class PingPong:
    """Our end of the ping-pong, with the orchestrator's account and consumer; the other is `bench.pipeline.arms`."""

    def __init__(self, client: bus.Client) -> None:
        self._client = client
        self._turns: dict[str, asyncio.Future[int]] = {}

    async def listen(self) -> None:
        """Takes the other end's answers, for ever."""
        async for message in Pull(self._client, "EVENTS", "saga", 128):
            await self._client.publish(message.reply, b"+ACK")
            if future := self._turns.pop(message.subject.rpartition(".")[2], None):
                future.set_result(message.seq)

    async def measure(self, publishes: int, count: int, in_flight: int) -> Measurement:
        """Chains of publishes, half of them by the other end."""

        async def chain() -> None:
            task_id, seq = str(uuid.uuid4()), 0
            for _ in range(publishes // 2):
                turn = self._turns[task_id] = asyncio.get_running_loop().create_future()
                await self._client.publish(f"step.dispatched.{task_id}", BODY, headers=guards(task_id, seq))
                async with asyncio.timeout(30):
                    seq = await turn

        return await measure(chain, count, in_flight)
