"""The view made anew from the log by the operator's command, into a database of its own, beside the live one."""

import asyncio
import os
import signal
import sys
import uuid
from urllib.parse import urlsplit

import asyncpg

from octollm.events import failpoint
from tests.chaos.failpoints.rig import Rig, until

TABLES = ("tasks", "plans", "attempts", "events")


async def rebuilt(rig: Rig, fail_point: str | None = None) -> list[str]:
    """Replays the log into an empty database; names the tables in which the live view differs from that.

    With a `fail_point` the first try is killed there, and a second one starts from what it left.
    """
    name = f"rebuilt_{uuid.uuid4().hex}"
    live = await asyncpg.connect(rig.stack.postgres_url)
    await live.execute(f"CREATE DATABASE {name}")
    url = urlsplit(rig.stack.postgres_url)._replace(path=f"/{name}").geturl()
    if fail_point is not None:
        assert await _rebuild(rig, url, {failpoint.VARIABLE: fail_point}) == -signal.SIGKILL
    assert await _rebuild(rig, url, {}) == 0
    anew = await asyncpg.connect(url)
    last = await anew.fetchval("SELECT last_seq FROM projections.checkpoint")

    async def level() -> bool:
        return bool(await live.fetchval("SELECT last_seq FROM projections.checkpoint") == last)

    await until(level, lambda: f"the live view has event {last}")
    faults = []
    for table in TABLES:
        query = f"SELECT row::text FROM projections.{table} row ORDER BY 1"
        ours, theirs = [[record[0] for record in await one.fetch(query)] for one in (live, anew)]
        if ours != theirs:
            differing = sorted(set(ours) ^ set(theirs))
            faults.append(f"{table}: {len(ours)} rows live, {len(theirs)} rebuilt; they differ in {differing[:4]}")
    await anew.close()
    await live.close()
    return faults


async def _rebuild(rig: Rig, postgres_url: str, more: dict[str, str]) -> int | None:
    environment = os.environ | {
        "OCTO_NATS__URL": rig.stack.nats_url,
        "OCTO_NATS__NKEY_FILE": str(rig.stack.nkey_file("projections")),
        "OCTO_POSTGRES__URL": postgres_url,
    }
    words = (sys.executable, "-P", "-m", "octollm.projections", "--rebuild")
    process = await asyncio.create_subprocess_exec(*words, env=environment | more)
    return await process.wait()
