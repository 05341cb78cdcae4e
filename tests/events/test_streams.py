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


async def test_a_consumer_is_brought_up_to_date_and_keeps_its_place(nats: bus.Client) -> None:
    js = nats.jetstream()
    await js.publish("task.received.old", b"{}")
    info = await js.consumer_info("EVENTS", "planner")
    older = info.config.evolve(filter_subjects=None, filter_subject="task.received.*", ack_wait=7.0).as_dict()
    body = json.dumps({"stream_name": "EVENTS", "config": older, "action": "update"}).encode()
    await nats.request("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.planner", body)
    old = await js.pull_subscribe_bind("planner", "EVENTS")
    [message] = await old.fetch(1, timeout=5)
    await message.ack_sync()
    with pytest.raises(streams.StreamDrift, match=r"consumer EVENTS/planner: filter_subjects is null, should be"):
        await streams.ensure(nats, make=False)
    await streams.ensure(nats)
    await js.publish("plan.requested.new", b"{}")
    [message] = await old.fetch(1, timeout=5)
    assert message.subject == "plan.requested.new"


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
