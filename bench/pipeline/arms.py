"""Arms that do nothing, in the executor's place: its account, its consumer, its settings.

`echo` answers every `step.dispatched` with `step.executed` at once, written as an arm in Python would be: the payload
is decoded, the answer validated and chained. What is left of a step is what the pipeline costs. When it ends it writes
what it saw to the file OCTO_EXECUTOR__SPANS: lines `<sequence of the dispatch> <ns, Unix>`.

`pong` is the other end of the bare chain: it answers with a publish, guarded and as large as an event, nothing else.
"""

import asyncio
import hashlib
import sys
import time
from pathlib import Path
from typing import Protocol

import uvloop

from bench.pipeline.chain import guards
from octollm.events import bus
from octollm.events.carrier import Output, OutputStream, ResourceUsage, StepDispatched, StepExecuted
from octollm.events.config import NatsSettings, Section, load
from octollm.events.consumer import Consumer, Delivery
from octollm.events.envelope import NewEvent
from octollm.events.log import Log
from octollm.events.service import Service, configure_logging

NAME = "executor"
_NOTHING = OutputStream(head="", tail="", bytes=0, digest=hashlib.sha256(b"").hexdigest(), truncated=False, lossy=False)


class ArmSettings(Section):
    """Where the probes listen, and where the spans go."""

    port: int
    spans: Path


class Arm(Protocol):
    """Handles deliveries."""

    async def handle(self, delivery: Delivery) -> None: ...


class Echo:
    """Answers as an arm must."""

    def __init__(self, client: bus.Client) -> None:
        self._log = Log(client, NAME)

    async def handle(self, delivery: Delivery) -> None:
        await delivery.settle(self._answer)

    async def _answer(self, delivery: Delivery) -> None:
        dispatch = delivery.event
        dispatched = dispatch.payload
        assert isinstance(dispatched, StepDispatched)
        executed = StepExecuted(
            plan_version=dispatched.plan_version,
            step_id=dispatched.step.id,
            attempt=dispatched.attempt,
            exit_code=0,
            output=Output(stdout=_NOTHING, stderr=_NOTHING),
            checks=[],
            usage=ResourceUsage(duration_ms=0, cpu_ms=0, memory_peak_bytes=0),
        )
        key = f"{dispatched.plan_version}/{dispatched.step.id}/{dispatched.attempt}"
        new = NewEvent(payload=executed, causation_id=dispatch.id, key=key, traceparent=dispatch.traceparent)
        await self._log.append(dispatch.task_id, new, dispatch.position)


class Pong:
    """Answers with as little as the broker lets it."""

    def __init__(self, client: bus.Client) -> None:
        self._client = client

    async def handle(self, delivery: Delivery) -> None:
        task_id = delivery.subject.rpartition(".")[2]
        headers = guards(task_id, delivery.seq)
        await self._client.publish(f"step.executed.{task_id}", delivery.data, headers=headers)
        await delivery.ack()


async def _take(client: bus.Client, arm: Arm, stopping: asyncio.Event, spans: list[str]) -> None:
    consumer = Consumer(client, "EVENTS", NAME)
    answering: set[asyncio.Task[None]] = set()

    async def take() -> None:
        async for delivery in consumer:
            spans.append(f"{delivery.seq} {time.time_ns()}\n")
            task = asyncio.create_task(arm.handle(delivery))
            answering.add(task)
            task.add_done_callback(answering.discard)

    taking = asyncio.create_task(take())
    await stopping.wait()
    await consumer.close()
    await taking
    while answering:
        await asyncio.wait(answering)


async def main(which: str) -> None:
    configure_logging(NAME)
    settings, nats = load(NAME, ArmSettings), load("nats", NatsSettings)
    client = await bus.connect(nats, NAME)

    async def connected() -> None:
        await client.flush(1)

    spans: list[str] = []
    arm = Echo(client) if which == "echo" else Pong(client)
    service = Service(NAME, settings.port, {"nats": connected})
    try:
        await service.run(_take(client, arm, service.stopping, spans))
    finally:
        settings.spans.write_text("".join(spans))
        await client.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
