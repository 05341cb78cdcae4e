"""What a dispatch is granted: just what it says, and nothing gets on record without it."""

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import rfc8785

from octollm.events import bus, schema
from octollm.events.capability import SigningKey
from octollm.events.carrier import Effect, StepDispatched
from octollm.events.envelope import Event
from octollm.events.log import Log
from octollm.orchestrator.fold import fold
from octollm.orchestrator.grants import granted
from octollm.orchestrator.saga import FOLDED, Intent, decide, in_time
from octollm.orchestrator.state import Open
from tests.events.verifier import grants
from tests.orchestrator.arms import Arms, Script, orchestrator, until_ended
from tests.orchestrator.history import CONTAINS as HELLO
from tests.orchestrator.history import PRIVATE_KEY, TASK, History, at, check_step, file_step, planned, received, step

KEY = SigningKey(PRIVATE_KEY)
SECOND = timedelta(seconds=1)


def asked(task_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the arm that reads this dispatch holds its token to: the payload as it was stored, not as it was decided."""
    return {
        "audience": body["step"]["arm"],
        "task": task_id,
        "plan": body["plan_version"],
        "step": body["step"]["id"],
        "attempt": body["attempt"],
        "purpose": body["purpose"],
        "action": hashlib.sha256(rfc8785.dumps(body["step"]["action"])).hexdigest(),
        "effect": body["step"]["effect"],
        "limits": body["step"]["limits"],
    }


def dispatch(**changes: Any) -> Intent:
    """The first dispatch of a task, as decided."""
    history = History()
    history.add(received())
    history.add(planned(msgspec.structs.replace(step("a"), **changes)))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, StepDispatched)
    return intent


def test_what_is_decided_is_unsigned_and_can_not_be_put_on_record() -> None:
    with pytest.raises(schema.SchemaViolation) as caught:
        schema.encode(dispatch().payload)
    assert {pointer for pointer, _ in caught.value.errors} == {"/capability"}


@pytest.mark.parametrize("changes", [{}, {"effect": Effect.side_effecting}, {"action": file_step("a").action}])
def test_a_dispatch_is_granted_what_it_says(changes: dict[str, Any]) -> None:
    intent = dispatch(**changes)
    event = granted(TASK, intent, KEY.sign)
    body = msgspec.json.decode(schema.encode(event.payload))
    end = datetime.fromisoformat(body["deadline"])
    wanted = asked(TASK, body)
    assert grants(body["capability"], wanted, end - SECOND)
    assert not grants(body["capability"], wanted, end + SECOND)
    assert not grants(body["capability"], wanted | {"task": TASK.replace("3", "4")}, end - SECOND)
    assert not grants(body["capability"], wanted | {"effect": "idempotent"}, end - SECOND)
    assert (event.causation_id, event.key, event.traceparent) == (intent.causation_id, intent.key, intent.traceparent)


def test_a_late_dispatch_is_granted_its_later_deadline() -> None:
    history = History()
    history.add(received())
    history.add(planned(step("a")))
    state = fold(history.events)
    (intent,) = decide(state, FOLDED)
    assert isinstance(state, Open)
    late = granted(TASK, in_time(state, intent, at(200)), KEY.sign)
    body = msgspec.json.decode(schema.encode(late.payload))
    assert grants(body["capability"], asked(TASK, body), at(200))


def test_whatever_else_is_decided_stays_as_it_is() -> None:
    history = History()
    history.add(received(seconds=1))
    history.add(planned(step("a")), seconds=5)
    (intent,) = decide(fold(history.events), FOLDED)
    event = granted(TASK, intent, lambda _: pytest.fail("nothing is dispatched"))
    assert event.kind == "task.failed"
    assert event.payload == intent.payload


@pytest_asyncio.fixture
async def arms(nats: bus.Client) -> AsyncIterator[Arms]:
    async with Arms(nats) as running:
        yield running


async def test_every_dispatch_on_record_is_granted(nats: bus.Client, nats_url: str, arms: Arms, task_id: str) -> None:
    plan = planned(file_step("a"), step("b", "a"), check_step("c", "b", verifies={0: HELLO}))
    async with orchestrator(nats_url):
        await arms.submit(task_id, Script(plan))
        events = await until_ended(Log(nats, "orchestrator"), task_id)
    dispatches: list[Event] = [event for event in events if event.kind == "step.dispatched"]
    assert [event.data["step"]["id"] for event in dispatches] == ["a", "b", "c"]
    for event in dispatches:
        assert grants(event.data["capability"], asked(task_id, event.data), event.stored_at)
    first, second, _ = (event.data["capability"] for event in dispatches)
    assert not grants(first, asked(task_id, dispatches[1].data), dispatches[1].stored_at)
    assert not grants(second, asked(task_id, dispatches[0].data), dispatches[0].stored_at)
