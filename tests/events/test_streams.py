"""Streams are made once and watched afterwards."""

import json

import pytest

from octollm.events import bus, streams
from octollm.events.config import NatsSettings
from octollm.stack import Stack, StackOptions


async def test_making_them_twice_changes_nothing(nats: bus.Client) -> None:
    before = await nats.jetstream().streams_info()
    await streams.ensure(nats)
    assert [info.config for info in await nats.jetstream().streams_info()] == [info.config for info in before]


async def test_a_drifted_setting_is_shown() -> None:
    options = StackOptions(ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats"}), services=())
    async with Stack(options) as stack:
        client = await bus.connect(NatsSettings(url=stack.nats_url), "test")
        info = json.loads((await client.request("$JS.API.STREAM.INFO.COMMANDS", b"{}")).data)
        drifted = info["config"] | {"max_msg_size": 99}
        await client.request("$JS.API.STREAM.UPDATE.COMMANDS", json.dumps(drifted).encode())
        with pytest.raises(streams.StreamDrift, match=r"stream COMMANDS: max_msg_size is 99, should be 1048576"):
            await streams.ensure(client)
        await client.close()


async def test_one_server_keeps_no_replicas(nats: bus.Client, nats_url: str) -> None:
    with pytest.raises(streams.StreamDrift, match=r"stream EVENTS: num_replicas is 1, should be 3"):
        await streams.ensure(NatsSettings(url=nats_url, replicas=3), make=False)
    await nats.request("$JS.API.STREAM.DELETE.TIMERS", b"")
    with pytest.raises(streams.BootstrapFailed, match=r"STREAM.CREATE.TIMERS: replicas > 1 not supported"):
        await streams.ensure(NatsSettings(url=nats_url, replicas=3))
    await streams.ensure(nats)


async def test_the_log_can_not_be_purged_or_edited(nats: bus.Client) -> None:
    for call in ("STREAM.PURGE.EVENTS", "STREAM.MSG.DELETE.EVENTS"):
        body = json.dumps({"seq": 1} if "DELETE" in call else {}).encode()
        assert "error" in json.loads((await nats.request(f"$JS.API.{call}", body)).data)
