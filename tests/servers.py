"""Where the shared servers of the tests come from: the wheels, or containers (OCTO_TESTS_SERVERS=containers).

Containers need a Docker engine and these images; tests that kill or restart a server always take the wheels'.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

NATS_IMAGE = "nats:2.15-alpine"
POSTGRES_IMAGE = "postgres:18-alpine"


@contextmanager
def given(*names: Literal["nats", "postgres"]) -> Iterator[dict[str, str]]:
    """URLs by name of servers that run in containers; empty where the stack is to start its own."""
    source = os.environ.get("OCTO_TESTS_SERVERS", "wheels")
    if source not in ("wheels", "containers"):
        raise ValueError(f"OCTO_TESTS_SERVERS is {source!r}; it must be wheels or containers")
    with ExitStack() as running:
        urls: dict[str, str] = {}
        if source == "containers" and "nats" in names:
            from testcontainers.community.nats import NatsContainer

            urls["nats"] = running.enter_context(NatsContainer(NATS_IMAGE, jetstream=True)).nats_uri()
        if source == "containers" and "postgres" in names:
            from testcontainers.community.postgres import PostgresContainer

            postgres = running.enter_context(PostgresContainer(POSTGRES_IMAGE))
            urls["postgres"] = postgres.get_connection_url(driver=None)
        yield urls
