"""Connections to Postgres. Every table of the view is in the schema `projections`, which is each connection's path."""

import asyncpg

from octollm.events.config import PostgresSettings
from octollm.projections.settings import ProjectionsSettings

_PATH = {"search_path": "projections", "application_name": "octollm-projections"}
_CONNECT_TIMEOUT_S = 5.0

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What asyncpg raises when the database can't be used. A message may quote a row: log the class only."""


class DatabaseLost(Exception):
    """The view's database can't be used; the message says how, without a row's content."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the view's database can't be used ({type(cause).__name__})")


async def connect(postgres: PostgresSettings, command_timeout_s: float) -> asyncpg.Connection:
    """A connection of the projector's own; raises one of LOST."""
    return await asyncpg.connect(
        postgres.url.get_secret_value(),
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        # A commit need not wait for the disk: after a crash rows and checkpoint are both a little older, and the log
        # is read again from there.
        server_settings=_PATH | {"synchronous_commit": "off"},
    )


async def readers(postgres: PostgresSettings, settings: ProjectionsSettings) -> asyncpg.Pool:
    """The API's pool. It opens connections as they are needed, so the service starts without the database."""
    return await asyncpg.create_pool(
        postgres.url.get_secret_value(),
        min_size=0,
        max_size=settings.pool_size,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=settings.query_timeout_seconds,
        server_settings=_PATH | {"default_transaction_read_only": "on"},
    )
