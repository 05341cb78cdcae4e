"""Every account against every subject: what it may do is done, all else is refused at once and changes nothing."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from octollm.events import schema
from octollm.stack import accounts
from tests.accounts.conftest import ACCOUNTS, SERVICES, Account, Connect

AT_ONCE_S = 0.1

WRITERS = {
    "task.received": {"reflex"},
    "task.rejected": {"reflex"},
    "plan.requested": {"orchestrator"},
    "task.planned": {"planner"},
    "plan.failed": {"planner"},
    "step.dispatched": {"orchestrator"},
    "step.executed": {"executor"},
    "step.compensated": {"executor"},
    "step.failed": {"executor", "orchestrator"},
    "step.skipped": {"orchestrator"},
    "task.approval_requested": {"orchestrator"},
    "task.approved": {"orchestrator"},
    "task.denied": {"orchestrator"},
    "task.cancel_requested": {"orchestrator"},
    "judge.requested": {"orchestrator"},
    "task.judged": {"planner"},
    "task.completed": {"orchestrator"},
    "task.failed": {"orchestrator"},
    "task.cancelled": {"orchestrator"},
    "task.invented": set(),
}
"""Events by writer, as the design has them (DESIGN 2)."""

COMMANDERS = {
    "task.submit": {"operator", "client"},
    "task.cancel": {"reflex", "operator"},
    "task.approve": {"reflex", "operator"},
    "task.resume": {"reflex", "operator"},
}

STORES = {
    "$KV.ATTEMPTS.{}.1.a.1": {"executor"},
    "$KV.ATTEMPTS.token.{}": {"executor"},
    "$KV.ATTEMPTS.{}": set(),
    "$O.ARTIFACTS.C.{}": {"reflex", "executor"},
    "$O.ARTIFACTS.M.{}": {"reflex", "executor"},
}
"""Keys and objects by writer; braces stand for something new."""

ADVISORIES = ("MSG_TERMINATED", "MAX_DELIVERIES")
"""What the broker alone tells the stream ADVISORY."""

OWNERS = {
    ("COMMANDS", "reflex"): "reflex",
    ("COMMANDS", "orchestrator"): "orchestrator",
    ("EVENTS", "saga"): "orchestrator",
    ("TIMERS", "orchestrator"): "orchestrator",
    ("EVENTS", "planner"): "planner",
    ("EVENTS", "executor"): "executor",
}
"""Durable consumers by the one account that may take from them."""

READERS = {
    "EVENTS": {*SERVICES, "operator"},
    "OBJ_ARTIFACTS": {"reflex", "executor"},
    "KV_ATTEMPTS": {"executor"},
    "COMMANDS": set(),
    "TIMERS": set(),
    "ADVISORY": {"operator"},
}

INSPECTORS = {
    "INFO": set(),
    "ACCOUNT.PURGE.BUS": set(),
    "STREAM.NAMES": set(),
    "STREAM.LIST": set(),
    "STREAM.INFO.COMMANDS": {"reflex", "operator"},
    "STREAM.INFO.EVENTS": {"projections", "operator"},
    "STREAM.INFO.TIMERS": {"operator"},
    "STREAM.INFO.OBJ_ARTIFACTS": {"reflex", "executor", "operator"},
    "STREAM.INFO.KV_ATTEMPTS": {"operator"},
    "STREAM.INFO.ADVISORY": {"operator"},
    "CONSUMER.INFO.COMMANDS.reflex": {"reflex", "operator"},
    "CONSUMER.INFO.EVENTS.saga": {"operator"},
} | {
    call: set()
    for stream in ("COMMANDS", "EVENTS", "TIMERS", "OBJ_ARTIFACTS", "KV_ATTEMPTS", "ADVISORY")
    for call in (
        f"STREAM.CREATE.{stream}",
        f"STREAM.UPDATE.{stream}",
        f"STREAM.DELETE.{stream}",
        f"STREAM.PURGE.{stream}",
        f"STREAM.SNAPSHOT.{stream}",
        f"STREAM.RESTORE.{stream}",
        f"STREAM.MSG.GET.{stream}",
        f"STREAM.MSG.DELETE.{stream}",
        f"CONSUMER.CREATE.{stream}",
        f"CONSUMER.CREATE.{stream}.mine",
        f"CONSUMER.CREATE.{stream}.mine.task.received.x",
        f"CONSUMER.DURABLE.CREATE.{stream}.mine",
        f"CONSUMER.DELETE.{stream}.saga",
        f"CONSUMER.PAUSE.{stream}.saga",
        f"CONSUMER.NAMES.{stream}",
        f"CONSUMER.LIST.{stream}",
    )
}
"""Calls of the JetStream API by the accounts that are answered."""

Stored = Callable[[], Awaitable[dict[str, Any]]]


async def refused(account: Account, subject: str, body: bytes = b"{}") -> bool:
    """Whether it is refused; a busy machine has three attempts to be told at once."""
    for _ in range(3):
        seconds = await account.refused(subject, body)
        if seconds is None or seconds < AT_ONCE_S:
            return seconds is not None
    raise AssertionError(f"{account.name}: {subject} was refused only after {seconds:.3f} s")


def test_every_event_has_its_writer() -> None:
    events = {kind for kind in schema.messages() if kind not in COMMANDERS}
    assert events <= WRITERS.keys()
    for kind, writers in WRITERS.items():
        rows = accounts.table().accounts.items()
        assert {name for name, rights in rows if f"{kind}.*" in rights.writes} == writers, kind


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_events_and_commands(name: str, account: Connect, stored: Stored) -> None:
    task_id = str(uuid.uuid4())
    me = await account(name)
    subjects = {f"{kind}.{task_id}": writers for kind, writers in WRITERS.items()} | COMMANDERS
    subjects |= {f"timer.set.{task_id}.deadline": {"orchestrator"}, f"timer.fired.{task_id}": set()}
    subjects |= {subject.format(task_id): writers for subject, writers in STORES.items()}
    subjects |= {f"$JS.EVENT.ADVISORY.CONSUMER.{what}.EVENTS.planner": set() for what in ADVISORIES}
    for subject, writers in subjects.items():
        before = await stored()
        if name in writers:
            at = {"Nats-Schedule": "@at 2099-01-01T00:00:00Z", "Nats-Schedule-Target": f"timer.fired.{task_id}"}
            ack = json.loads((await me.ask(subject, headers=at if subject.startswith("timer") else None)).data)
            assert ack["seq"] == (await stored())[ack["stream"]][0] == before[ack["stream"]][0] + 1, subject
        else:
            assert await refused(me, subject), subject
            assert await stored() == before, subject


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_consumers(name: str, account: Connect) -> None:
    me = await account(name)
    for (stream, durable), owner in OWNERS.items():
        following = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        ack = f"$JS.ACK.{stream}.{durable}.1.999999.1.1.0"
        if name == owner:
            answer = await me.ask(following, b'{"batch": 1, "no_wait": true}')
            assert answer.headers or answer.reply.startswith("$JS.ACK."), following
            assert None is await me.refused(ack), ack
        else:
            assert await refused(me, following), following
            assert await refused(me, ack), ack


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_reads(name: str, account: Connect, stored: Stored) -> None:
    me = await account(name)
    before = await stored()
    for stream, readers in READERS.items():
        for call, body in (("", b'{"last_by_subj": "none"}'), (".task.received.none", b"")):
            subject = f"$JS.API.DIRECT.GET.{stream}{call}"
            if name in readers:
                assert (await me.ask(subject, body)).headers["Status"] == "404"  # type: ignore[index]
            else:
                assert await refused(me, subject, body), subject
    assert await stored() == before


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_the_jetstream_api(name: str, account: Connect, stored: Stored) -> None:
    me = await account(name)
    before = await stored()
    for call, inspectors in INSPECTORS.items():
        subject = f"$JS.API.{call}"
        if name in inspectors:
            answer = json.loads((await me.ask(subject)).data)
            assert "error" not in answer, answer
            assert call.split(".")[2] in (answer["config"].get("name"), answer.get("stream_name")), answer
        else:
            assert await refused(me, subject), subject
    assert await stored() == before


@pytest.mark.parametrize("name", SERVICES)
async def test_subscriptions(name: str, account: Connect) -> None:
    me = await account(name)
    hears = {"executor": {f"log.task.{fact}.*" for fact in ("cancel_requested", "failed", "completed", "cancelled")}}
    hears["executor"].add("log.step.failed.*")
    hears["projections"] = {"log.*.*.*", "log.task.received.*"}
    candidates = {
        *hears["executor"],
        *hears["projections"],
        ">",
        "*.>",
        "task.>",
        "task.submit",
        "*.*.*",
        "$JS.>",
        "log.>",
    }
    allowed = {subject for subject in candidates if await me.may_subscribe(subject)}
    # Whoever hears the whole log hears any part of it.
    assert allowed == (hears["executor"] | hears["projections"] if name == "projections" else hears.get(name, set()))
    for other in ACCOUNTS:
        assert await me.may_subscribe(f"_INBOX_{other}.x.>") == (other == name)


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_a_reply_aimed_at_a_foreign_subject_lands_nothing(name: str, account: Connect, stored: Stored) -> None:
    me = await account(name)
    rights = accounts.table().client if name == "client" else accounts.table().accounts[name]
    reads = [f"$JS.API.DIRECT.GET.{stream}" for stream in rights.reads]
    pulls = [f"$JS.API.CONSUMER.MSG.NEXT.{row.stream}.{row.durable_name}" for row in rights.consumes]
    tells = [f"$JS.API.{call}".replace("*", "EVENTS", 1).replace("*", "saga") for call in rights.inspects]
    bodies = dict.fromkeys(reads, b'{"seq": 1, "next_by_subj": ">", "batch": 8}')
    bodies |= dict.fromkeys(pulls, b'{"batch": 1, "no_wait": true}')
    # A pull and a read need something to give; reflex and client are those who may write it.
    await (await account("reflex")).ask(f"task.received.{uuid.uuid4()}")
    await (await account("client")).ask("task.submit")
    targets = ["task.completed", "task.approved", "step.executed", "task.planned", "task.received"]
    foreign = [f"{kind}.{uuid.uuid4()}" for kind in targets if name not in WRITERS[kind]]
    foreign += [subject for subject, writers in COMMANDERS.items() if name not in writers]
    foreign += [
        f"timer.fired.{uuid.uuid4()}",
        "$JS.API.STREAM.PURGE.COMMANDS",
        "$O.ARTIFACTS.M.x",
        "$KV.ATTEMPTS.token.x",
    ]
    for target in foreign:
        before = await stored()
        for subject in [*reads, *pulls, *tells]:
            assert None is await me.refused(subject, bodies.get(subject, b"{}"), reply=target)
        wrote = 0
        for kind, writers in {**WRITERS, **COMMANDERS}.items():
            if name in writers:
                subject = kind if kind in COMMANDERS else f"{kind}.{uuid.uuid4()}"
                assert None is await me.refused(subject, reply=target)
                wrote += 1
        # What is stored after everything shows how much was stored before it.
        async with asyncio.timeout(5):
            while grown(before, await stored()) < wrote:
                await asyncio.sleep(0.01)
        await (await account("reflex")).ask(f"task.received.{uuid.uuid4()}")
        await (await account("client")).ask("task.submit")
        after = await stored()
        assert grown(before, after) == wrote + 2, target
        assert after["TIMERS"] == before["TIMERS"]
        assert target not in (after["EVENTS"][3] or {})


def grown(before: dict[str, Any], after: dict[str, Any]) -> int:
    """How many messages the streams took."""
    return sum(after[stream][0] - before[stream][0] for stream in after)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_trace_aimed_at_a_foreign_subject_lands_nothing(name: str, account: Connect, stored: Stored) -> None:
    me = await account(name)
    target = f"task.rejected.{uuid.uuid4()}" if name != "reflex" else f"task.approved.{uuid.uuid4()}"
    written = [f"{kind}.{uuid.uuid4()}" for kind, writers in WRITERS.items() if name in writers]
    for subject in [*written, "$JS.API.DIRECT.GET.EVENTS"]:
        await me.refused(subject, headers={"Nats-Trace-Dest": target})
    await (await account("reflex")).ask(f"task.received.{uuid.uuid4()}")
    assert target not in (await stored())["EVENTS"][3]
