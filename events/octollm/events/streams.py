"""Makes the streams, consumers and object stores of streams.json, or checks that they are as it says."""

import asyncio
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events.bus import connect
from octollm.events.config import NatsSettings

_NOT_FOUND = (10059, 10014)
_RETRY_S = 15.0


class StreamDrift(Exception):
    """What the broker has differs from streams.json. `differences`: (object, setting, wanted, found)."""

    def __init__(self, differences: list[tuple[str, str, Any, Any]]) -> None:
        lines = "\n".join(
            f"  {name}: {setting} is {json.dumps(found)}, should be {json.dumps(wanted)}"
            for name, setting, wanted, found in differences
        )
        super().__init__(
            f"the broker's settings differ from events/streams.json in {len(differences)} place(s):\n{lines}\n"
            "Put it right with the nats CLI (nats stream edit, nats consumer edit), or start on a new data directory."
        )
        self.differences = differences


class BootstrapFailed(Exception):
    """The broker refused to make a stream or consumer."""


@cache
def definitions() -> dict[str, list[dict[str, Any]]]:
    """The content of streams.json."""
    loaded: dict[str, list[dict[str, Any]]] = json.loads((files("octollm.events") / "streams.json").read_text())
    return loaded


def _object_store(bucket: dict[str, Any]) -> dict[str, Any]:
    """The stream that ADR-20 prescribes for an object store."""
    name = bucket["bucket"]
    return {
        "name": f"OBJ_{name}",
        "description": bucket["description"],
        "subjects": [f"$O.{name}.C.>", f"$O.{name}.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": 1,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }


def _streams(replicas: int) -> Iterator[dict[str, Any]]:
    """What every stream is to be, on so many servers."""
    for config in definitions()["streams"] + [_object_store(bucket) for bucket in definitions()["object_stores"]]:
        wanted = config | {"num_replicas": replicas}
        if replicas > 1:
            wanted.pop("persist_mode", None)  # the broker knows it on one server only
        yield wanted


async def ensure(where: Client | NatsSettings, make: bool = True, replicas: int = 1) -> None:
    """Makes what is missing and checks what is there; raises StreamDrift, BootstrapFailed or ConnectionError.

    `where` is a connection, or where the broker is and how many of its servers keep each stream. Without `make` nothing
    is changed, and what is missing is a drift.
    """
    if isinstance(where, NatsSettings):
        client = await connect(where, "bootstrap", patience_s=_RETRY_S)
        try:
            return await ensure(client, make, where.replicas)
        finally:
            await client.close()
    differences: list[tuple[str, str, Any, Any]] = []
    for config in _streams(replicas):
        name = config["name"]
        info = await _api(where, f"STREAM.INFO.{name}", {})
        if info is None and make:
            info = await _api(where, f"STREAM.CREATE.{name}", config)
        differences += _compare(f"stream {name}", config, info)
    for wanted in definitions()["consumers"]:
        stream, durable = wanted["stream"], wanted["durable_name"]
        config = {key: value for key, value in wanted.items() if key != "stream"}
        if len(config["filter_subjects"]) == 1:
            # The broker keeps a single filter under its older name.
            config["filter_subject"] = config.pop("filter_subjects")[0]
        info = await _api(where, f"CONSUMER.INFO.{stream}.{durable}", {})
        if info is None and make:
            body = {"stream_name": stream, "config": config, "action": "create"}
            info = await _api(where, f"CONSUMER.DURABLE.CREATE.{stream}.{durable}", body)
        elif make and _compare(durable, config, info):
            # A consumer is ours to change: it keeps its place, and a stream's messages are untouched.
            body = {"stream_name": stream, "config": config, "action": "update"}
            info = await _api(where, f"CONSUMER.DURABLE.CREATE.{stream}.{durable}", body)
        differences += _compare(f"consumer {stream}/{durable}", config, info)
    if differences:
        raise StreamDrift(differences)
    return None


def _compare(name: str, wanted: dict[str, Any], info: dict[str, Any] | None) -> list[tuple[str, str, Any, Any]]:
    if info is None:
        return [(name, "existence", True, False)]
    found = info.get("config", {})
    return [
        (name, setting, value, found.get(setting)) for setting, value in wanted.items() if found.get(setting) != value
    ]


async def _api(client: Client, call: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """One JetStream API call; None for something that isn't there. Waits for JetStream to come up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _RETRY_S
    while True:
        try:
            message = await client.request(f"$JS.API.{call}", json.dumps(body).encode(), timeout=5)
            break
        except (nats_errors.NoRespondersError, nats_errors.TimeoutError) as error:
            if loop.time() > deadline:
                raise BootstrapFailed(f"{call}: JetStream does not answer; is it enabled on this server?") from error
            await asyncio.sleep(0.05)
    answer: dict[str, Any] = json.loads(message.data)
    if refusal := answer.get("error"):
        if refusal.get("err_code") in _NOT_FOUND:
            return None
        raise BootstrapFailed(f"{call}: {refusal['description']} ({refusal.get('err_code')})")
    return answer
