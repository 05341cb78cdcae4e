"""Checks of a stack that runs: every server answers, keeps what it acknowledges, and every service is ready."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

from octollm.cli import dead_letters
from octollm.cli.finding import Finding, note, ok, wrong
from octollm.events import streams
from octollm.events.bus import Client, connect
from octollm.events.config import NatsSettings
from octollm.events.direct import DirectGetFailed
from octollm.stack import StackState, State, probe

PATIENCE_S = 5.0
MOST_DEAD_LETTERS = 200
"""As many of the newest are looked at."""

_MONITOR = re.compile(r'^http: "([^"]+)"$', re.MULTILINE)


async def supervised(state: StackState) -> AsyncIterator[Finding]:
    """Whether each program runs, and kept running."""
    for process in state.processes:
        name = process.name
        if process.state is not State.READY:
            yield wrong(name, f"{process.state.value}, restarted {process.restarts} times", f"octo logs {name}")
        elif process.restarts:
            yield note(name, f"runs; it was restarted {process.restarts} times", f"octo logs {name}")


async def broker(settings: NatsSettings) -> AsyncIterator[Finding]:
    """Whether the broker answers and its streams and consumers are as the contract has them."""
    try:
        client = await connect(settings, "octo-doctor", patience_s=PATIENCE_S)
    except OSError:
        yield wrong("nats", "does not answer", "octo ps, octo logs nats; start the stack with `octo up`")
        return
    try:
        version = client.connected_server_version
        yield ok("nats", f"answers, version {version.major}.{version.minor}.{version.patch}")
        try:
            await asyncio.wait_for(streams.ensure(client, make=False, replicas=settings.replicas), PATIENCE_S)
        except streams.StreamDrift as drift:
            for where, setting, wanted, found in drift.differences:
                detail = f"{where}: {setting} is {json.dumps(found)}, should be {json.dumps(wanted)}"
                made = setting == "existence" or where.startswith("consumer ")
                fix = "`octo up` puts it right at the next start" if made else "put it right with the nats CLI"
                yield wrong("streams", detail, fix)
        except (streams.BootstrapFailed, TimeoutError) as error:
            yield wrong("streams", str(error) or "JetStream does not answer", "octo logs nats")
        else:
            yield ok("streams", "streams and consumers are as events/streams.json says")
            async for finding in _given_up(client):
                yield finding
    finally:
        await client.close()


async def _given_up(client: Client) -> AsyncIterator[Finding]:
    """Whether a task waits because a service has given its delivery up."""
    try:
        letters = await asyncio.wait_for(dead_letters.newest(client, MOST_DEAD_LETTERS), PATIENCE_S)
    except (DirectGetFailed, TimeoutError) as error:
        yield note("dead letters", f"can't be read: {str(error) or 'no answer'}", "use the operator's key")
        return
    waiting = sum(letter.state is dead_letters.State.OPEN for letter in letters)
    if waiting:
        yield note("dead letters", f"given up, and the task stands still since: {waiting}", "octo dlq ls")


async def broker_fsync(data_dir: Path) -> Finding:
    """Whether the broker has an event on disk before it acknowledges."""
    try:
        monitor = _MONITOR.search((data_dir / "nats" / "server.conf").read_text(encoding="utf-8"))
    except OSError:
        monitor = None
    if monitor is None:
        return note(
            "nats fsync", "the server isn't this stack's own, so its setting can't be read", "check sync_interval"
        )
    try:
        _, body = await asyncio.wait_for(probe.http_get(f"http://{monitor[1]}/jsz?config=1"), PATIENCE_S)
        on = json.loads(body)["config"].get("sync_always")
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        return wrong(
            "nats fsync", f"the server's monitoring doesn't say: {str(error) or 'no answer'}", "octo logs nats"
        )
    if on:
        return ok("nats fsync", "an event is on disk before it is acknowledged")
    return wrong(
        "nats fsync", "off: a power cut loses acknowledged events", "start without --no-fsync, unless you measure"
    )


async def postgres(url: str) -> Finding:
    """Whether Postgres answers and syncs; the projections alone depend on it."""
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=PATIENCE_S)
        try:
            version = await connection.fetchval("SHOW server_version", timeout=PATIENCE_S)
            fsync = await connection.fetchval("SHOW fsync", timeout=PATIENCE_S)
        finally:
            await connection.close(timeout=PATIENCE_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        return wrong("postgres", f"can't be used: {str(error) or type(error).__name__}", "octo logs postgres")
    if fsync != "on":
        return note("postgres", f"answers, version {version}; fsync is off", "the view can be rebuilt from the log")
    return ok("postgres", f"answers, version {version}, fsync on")


async def redis(url: str) -> Finding:
    """Whether cache and rate limits answer."""
    return await _asked(
        "valkey", probe.redis_ready(url), "octo logs valkey; without it reflex works, but forgets limits"
    )


async def service(name: str, address: str) -> AsyncIterator[Finding]:
    """What a service says of itself and of what it depends on."""
    try:
        status, body = await asyncio.wait_for(probe.http_get(f"{address}/ready"), PATIENCE_S)
        report: dict[str, Any] = json.loads(body)
        checks: dict[str, str] = report.get("checks", {})
    except (OSError, TimeoutError, ValueError, AttributeError) as error:
        reason = str(error) or f"no answer within {PATIENCE_S:g} s"
        yield wrong(name, f"{address}/ready: {reason}", f"octo ps, octo logs {name}; start it with `octo up`")
        return
    failing = {check: said for check, said in checks.items() if said != "ok"}
    if status != 200 and not failing:
        yield wrong(name, f"/ready answers {status}", f"octo logs {name}")
    for check, said in failing.items():
        fix = f"octo logs {name}" if status != 200 else ""
        yield (wrong if status != 200 else note)(f"{name} {check}", str(said), fix)
    if status == 200:
        yield ok(name, f"ready at {address} ({', '.join(checks) or 'no dependencies'})")


async def _asked(name: str, answer: Awaitable[None], fix: str) -> Finding:
    try:
        await asyncio.wait_for(answer, PATIENCE_S)
    except Exception as error:  # three protocols, many kinds of failure, one meaning
        return wrong(name, f"can't be used: {str(error) or type(error).__name__}", fix)
    return ok(name, "answers")
