"""Ports: a busy one names its owner, free ones go to one stack only."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from octollm.stack import PortBusy, StackError, procfs
from octollm.stack.ports import DEFAULTS, FREE, Ports


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_busy_port_names_its_owner_and_the_way_out(listening: int) -> None:
    with pytest.raises(
        PortBusy, match=rf"nats: port {listening} is used by pid {os.getpid()}: .*OCTO_NATS__URL"
    ) as busy:
        Ports({"nats": listening}).fixed("nats", DEFAULTS["nats"])
    assert (busy.value.name, busy.value.port) == ("nats", listening)
    assert busy.value.owner
    assert os.path.basename(sys.executable) in busy.value.owner or "pytest" in busy.value.owner  # noqa: PTH119
    with pytest.raises(PortBusy, match="OCTO_REFLEX__PORT"):
        Ports("default").fixed("reflex", listening)


def test_listeners_on_every_address_and_on_ipv6_are_found() -> None:
    with ExitStack() as stack:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
            server = stack.enter_context(socket.create_server((host, 0), family=family))
            assert (procfs.listener(server.getsockname()[1]) or "").startswith(f"pid {os.getpid()}:")


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert procfs.listener(bound.getsockname()[1]) is None


async def test_nothing_is_started_when_a_port_is_busy(stack_of: Any, fake: Any, listening: int) -> None:
    stack = stack_of(ports={"nats": 0, "fake": listening}, servers=(), services=(fake(),))
    with pytest.raises(PortBusy, match="fake: port"):
        await stack.start()
    assert stack.processes() == []


async def test_the_callers_port_is_taken(stack_of: Any, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port = Ports("free").free()
    monkeypatch.setenv("OCTO_FAKE__PORT", str(port))
    async with stack_of(ports="default", servers=(), services=(fake(),)) as stack:
        assert stack.url("fake") == f"http://127.0.0.1:{port}"
    monkeypatch.setenv("OCTO_FAKE__PORT", "none")
    with pytest.raises(StackError, match="OCTO_FAKE__PORT is 'none'"):
        await stack_of(ports="default", servers=(), services=(fake(),)).start()


def test_a_free_port_is_given_once_until_it_is_given_back() -> None:
    one, other = Ports("free"), Ports("free")
    taken = [one.free() for _ in range(40)] + [other.fixed("nats", 4222) for _ in range(40)]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(FREE)
    one.release()
    other.release()
