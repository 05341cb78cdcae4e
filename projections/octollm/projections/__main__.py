"""`python -m octollm.projections`: the projector and the REST view in one process.

`--rebuild` drops the view, replays the whole log and ends.
"""

import argparse
import asyncio
import sys
from functools import partial

import uvloop

from octollm.events.config import ConfigError, NatsSettings, PostgresSettings, load
from octollm.events.durability import acks
from octollm.events.log import LogUnavailable
from octollm.events.service import Service, configure_logging
from octollm.projections.app import create_app, watch
from octollm.projections.database import LOST, readers
from octollm.projections.migration import MigrationRefused
from octollm.projections.progress import Progress
from octollm.projections.projector import Projector, ProjectorActive, StreamChanged, end, rebuild
from octollm.projections.proxy import Reflex
from octollm.projections.queries import Queries
from octollm.projections.routes import View
from octollm.projections.settings import ProjectionsSettings
from octollm.projections.stream import EventStream

_DRAIN_S = 1.0


def main() -> None:
    """Exits 0 after SIGTERM or a rebuild; 2 for a configuration, 75 for a rebuild that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m octollm.projections", description="The view of the event log.")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--reflex-url", help="where commands are handed to")
    parser.add_argument("--rebuild", action="store_true", help="drop the view, replay the whole log, and end")
    flags = vars(parser.parse_args())
    rebuilding = flags.pop("rebuild")
    configure_logging("projections")
    try:
        settings = load("projections", ProjectionsSettings, **flags)
        postgres, nats = load("postgres", PostgresSettings), load("nats", NatsSettings)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
    uvloop.run(_rebuild(postgres, nats) if rebuilding else _serve(settings, postgres, nats))


async def _serve(settings: ProjectionsSettings, postgres: PostgresSettings, nats: NatsSettings) -> None:
    progress, stream = Progress(), EventStream(nats)
    pool = await readers(postgres, settings)
    reflex = Reflex(settings.reflex_url, settings.reflex_timeout_seconds)
    queries = Queries(pool, settings.query_timeout_seconds)
    watch(progress, pool)

    async def broker() -> None:
        if not stream.connected:
            raise ConnectionError("no connection to NATS")

    async def projector() -> None:
        if progress.trouble:
            raise RuntimeError(progress.trouble)

    async def database() -> None:
        await queries.ping()

    service = Service(
        "projections",
        settings.port,
        {"nats": broker, "postgres": database, "projector": projector},
        host=settings.host,
        app=create_app(View(queries=queries, progress=progress, stream=stream, reflex=reflex)),
        drain_s=_DRAIN_S,
        details={"acks": partial(acks, nats)},
    )

    async def work() -> None:
        projecting = asyncio.create_task(Projector(postgres, stream, progress).run())
        stopping = asyncio.create_task(service.stopping.wait())
        await asyncio.wait({projecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        progress.close()
        stopping.cancel()
        if projecting.done():
            projecting.result()
        await end(projecting)

    try:
        await service.run(work())
    finally:
        await reflex.close()
        pool.terminate()
        await stream.close()


async def _rebuild(postgres: PostgresSettings, nats: NatsSettings) -> None:
    stream = EventStream(nats)
    try:
        last = await rebuild(postgres, stream)
    except (ProjectorActive, StreamChanged, MigrationRefused, LogUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(75) from error
    except LOST as error:
        sys.stderr.write(f"the database can't be used ({type(error).__name__}); check OCTO_POSTGRES__URL\n")
        raise SystemExit(75) from error
    finally:
        await stream.close()
    sys.stdout.write(f"the view was rebuilt up to sequence {last}\n")


if __name__ == "__main__":
    main()
