"""Every service says in /ready whether acknowledged means on disk, as the broker itself has it."""

import httpx
import pytest

from octollm.events.config import NatsSettings
from octollm.events.durability import acks
from octollm.stack import SERVICES, Stack, StackOptions


@pytest.mark.parametrize(("fsync", "said"), [(True, "fsynced"), (False, "not fsynced: ")])
async def test_every_service_says_what_the_broker_does(fsync: bool, said: str) -> None:
    async with (
        Stack(StackOptions(ephemeral=True, ports="free", fsync=fsync)) as stack,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        for service in SERVICES:
            report = (await http.get(f"{stack.url(service.name)}/ready")).json()
            assert report["details"]["acks"].startswith(said), service.name
            assert (report["status"], report["failing"]) == ("ready", []), service.name


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9", "no url", "http://[", ""])
async def test_who_is_not_told_does_not_guess(url: str | None) -> None:
    assert (await acks(NatsSettings(monitor_url=url))).startswith("unknown: ")
