"""How long a two-step task takes, and what it writes: `python -m bench.task`.

Tasks enter by `task.submit` with a plan of their own: two `true` steps in the real sandbox, one after the other.
The clock runs from the publish until a subscriber hears that `task.completed` is stored; fsync is on.
"""

import asyncio

from bench.load import Tasks, linear_plan, measure
from bench.machine import describe, percentiles
from octollm.events import bus
from octollm.events.config import NatsSettings
from octollm.stack import Stack, StackOptions

WARM_UP, ALONE, MANY = 10, 100, 300


async def main() -> None:
    print(describe())
    plan = linear_plan(2)
    async with Stack(StackOptions(ephemeral=True, ports="free")) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url, nkey_file=stack.nkey_file()), "bench")
        tasks = Tasks(client)
        await tasks.listen()

        async def one() -> None:
            await tasks.run(plan)

        await measure(one, WARM_UP, in_flight=1)
        before = await tasks.stored()
        alone = await measure(one, ALONE, in_flight=1)
        after = await tasks.stored()
        print(f"two-step task, one in flight: {percentiles(alone.latencies_ms)}")
        stored = {stream: (after[stream] - before[stream]) / ALONE for stream in after}
        print("messages stored per task:", ", ".join(f"{stream} {count:.2f}" for stream, count in stored.items()))
        for in_flight in (16, 100):
            many = await measure(one, MANY, in_flight)
            print(
                f"two-step task, {in_flight} in flight: {percentiles(many.latencies_ms)}  {many.per_second:.0f} tasks/s"
            )
        await client.close()


if __name__ == "__main__":
    asyncio.run(main())
