"""Whoever connects without a key: submits, sees exactly what is stored, and can't look into others' submissions."""

import asyncio
import json
import uuid

import pytest
from nats.aio.msg import Msg

from octollm.stack import Stack
from tests.accounts.conftest import Connect, connect


@pytest.mark.parametrize("wildcard", ["task.>", "*.*.{}", "task.*.{}", ">"])
async def test_sees_the_stored_events_under_their_own_names(wildcard: str, account: Connect) -> None:
    task_id = str(uuid.uuid4())
    client, planner, reflex = await account("client"), await account("planner"), await account("reflex")
    seen: list[Msg] = []
    last = asyncio.Event()

    async def heard(message: Msg) -> None:
        # Other tests of this process may be writing, too.
        if message.subject.endswith(task_id) or message.subject == "task.submit":
            seen.append(message)
        if message.subject == f"task.rejected.{task_id}":
            last.set()

    await client.client.subscribe(wildcard.format(task_id), cb=heard)
    await client.client.flush()
    submission = json.dumps({"goal": "secret@example.org", "task_id": task_id}).encode()
    await client.ask("task.submit", submission)
    stored = []
    for author, kind, expected in (
        (reflex, "task.received", 0),
        (planner, "task.planned", 0),
        (reflex, "task.rejected", None),
    ):
        subject = f"{kind}.{task_id}"
        guard = {"Nats-Expected-Last-Subject-Sequence": "0"} if expected is not None else None
        ack = json.loads((await author.ask(subject, kind.encode(), guard)).data)
        stored.append((subject, kind.encode(), str(ack["seq"])))
        if expected is not None:
            # The same again is refused by the stream, and seen by nobody.
            assert "error" in json.loads((await author.ask(subject, b"refused", guard)).data)
    await asyncio.wait_for(last.wait(), 5)
    assert [(m.subject, m.data, (m.headers or {}).get("Nats-Sequence")) for m in seen] == stored
    assert all(m.headers and m.headers["Nats-Time-Stamp"] for m in seen)


async def test_does_not_see_submissions(account: Connect) -> None:
    client, other = await account("client"), await account("client")
    assert not await client.may_subscribe("task.submit")
    seen: list[str] = []

    async def heard(message: Msg) -> None:
        seen.append(message.subject)

    for wildcard in ("task.*", "*.submit", "*.*", ">", "task.>"):
        await client.client.subscribe(wildcard, cb=heard)
    await client.client.flush()
    await other.ask("task.submit")
    operator = await account("operator")
    await operator.ask("task.cancel")
    # Something that is seen ends the wait for what must not be.
    task_id = str(uuid.uuid4())
    await (await account("reflex")).ask(f"task.received.{task_id}")
    async with asyncio.timeout(5):
        while f"task.received.{task_id}" not in seen:
            await asyncio.sleep(0.01)
    assert not {"task.submit", "task.cancel"} & set(seen)


async def test_an_answer_aimed_at_an_event_s_subject_is_no_event(account: Connect) -> None:
    client, operator = await account("client"), await account("operator")
    subject = f"task.completed.{uuid.uuid4()}"
    heard = await client.client.subscribe(subject)
    elsewhere = await operator.client.subscribe(f"log.{subject}")
    await operator.client.flush()
    await client.client.publish("task.submit", b"{}", reply=subject)
    # Clients share an account, so they see the broker's answer; it has no place in the log, and says so.
    answer = await heard.next_msg(5)
    assert answer.headers is None
    assert json.loads(answer.data)["stream"] == "COMMANDS"
    task_id = uuid.uuid4()
    proof = await operator.client.subscribe(f"log.task.received.{task_id}")
    await operator.client.flush()
    await (await account("reflex")).ask(f"task.received.{task_id}")
    await proof.next_msg(5)
    assert elsewhere.pending_msgs == 0


async def test_a_key_of_another_stack_opens_nothing(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    from octollm.stack.keys import nkey

    foreign = tmp_path_factory.mktemp("keys") / "foreign.nk"
    nkey(foreign)
    with pytest.raises(Exception, match=r"(?i)authorization"):
        await connect(stack.nats_url, "planner", foreign)
