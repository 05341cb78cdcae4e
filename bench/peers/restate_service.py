"""Restate: a handler of four journaled steps that do nothing, served as its documentation shows.

Runs in the peers' environment. Argument: the port.
"""

import asyncio
import sys

import hypercorn.asyncio
import restate
from hypercorn import Config

service = restate.Service("Pipeline")


async def step(number: int) -> int:
    return number


@service.handler()
async def run(context: restate.Context) -> int:
    total = 0
    for number in range(1, 5):
        total += await context.run_typed(f"step-{number}", step, number=number)
    return total


async def main(port: str) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 2147483647
    config.keep_alive_max_requests = 2147483647
    await hypercorn.asyncio.serve(restate.app([service]), config)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
