"""Tasks as the REST view answers them, made from its own types."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from octollm.events import schema
from octollm.events.carrier import ErrorCode
from octollm.projections.rows import AttemptStatus, Phase, Status
from octollm.projections.views import (
    AttemptPage,
    AttemptView,
    EventPage,
    EventView,
    PlanView,
    StepSummary,
    TaskError,
    TaskPage,
    TaskView,
)
from tests.cli.conftest import FakeServer

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TASKS = "/api/v1/tasks"


def example(kind: str) -> Any:
    """The first example of a schema."""
    return schema.documents()[kind]["examples"][0]


def task(task_id: str | None = None, **changes: Any) -> TaskView:
    """A completed task."""
    plain = TaskView(
        task_id=task_id or str(uuid.uuid4()),
        status=Status.COMPLETED,
        phase=Phase.DONE,
        goal="Echo hello world",
        priority="medium",
        retry_of=None,
        error=None,
        plan_version=1,
        steps=StepSummary(total=1, done=1, running=[]),
        cost_usd=0.0,
        cost_micro_usd=0,
        tokens=0,
        duration_ms=48,
        version=5,
        last_seq=12,
        undecodable=0,
        created_at=NOON,
        updated_at=NOON,
        cancel_requested_at=None,
        finished_at=NOON,
        budget=None,
        metadata=None,
        result=msgspec.Raw(msgspec.json.encode(example("task.completed")["result"])),
    )
    return msgspec.structs.replace(plain, **changes)


def failed_task(task_id: str, code: str, message: str, **changes: Any) -> TaskView:
    error = TaskError(code=ErrorCode(code), message=message, hint="", reasons=msgspec.Raw(b"[]"))
    return task(task_id, status=Status.FAILED, error=error, result=None, **changes)


def attempt(**changes: Any) -> AttemptView:
    """A step that was executed."""
    ended = example("step.executed")
    plain = AttemptView(
        plan_version=1,
        step_id="echo",
        attempt=1,
        status=AttemptStatus.EXECUTED,
        title="Echo the text",
        arm="executor",
        effect="pure",
        action=None,
        exit_code=0,
        signal=None,
        error=None,
        violations=None,
        output=msgspec.Raw(msgspec.json.encode(ended["output"])),
        checks=None,
        usage=msgspec.Raw(msgspec.json.encode(ended["usage"])),
        deadline=None,
        dispatched_at=NOON,
        ended_at=NOON,
        seq=10,
    )
    return msgspec.structs.replace(plain, **changes)


def tell(server: FakeServer, shown: TaskView, *attempts: AttemptView, first: dict[str, Any] | None = None) -> None:
    """Has the server answer for one task, whose first event has this payload."""
    path = f"{TASKS}/{shown.task_id}"
    payload = first or example("task.received")
    event = EventView(
        seq=1,
        version=1,
        kind="task.received",
        id=None,
        causation_id=None,
        source=None,
        stored_at=NOON,
        hash="0" * 64,
        headers=msgspec.Raw(b"{}"),
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        raw=None,
        undecodable=None,
    )
    plan = PlanView(
        task_id=shown.task_id,
        plan_version=1,
        provider="caller",
        model=None,
        steps=msgspec.Raw(msgspec.json.encode(example("task.planned")["steps"])),
        input_tokens=0,
        output_tokens=0,
        cost_usd=0.0,
        cost_micro_usd=0,
        confidence=1000,
        repairs=0,
        planned_at=NOON,
        seq=9,
    )
    documents = {
        "": shown,
        "/plan": plan,
        "/steps": AttemptPage(task_id=shown.task_id, steps=list(attempts), next_cursor=None),
        "/events": EventPage(task_id=shown.task_id, events=[event], next_cursor=None),
    }
    for part, document in documents.items():
        server.tell("GET", path + part, 200, msgspec.json.encode(document))


def tell_list(server: FakeServer, *tasks: TaskView) -> None:
    """Has the server list these tasks."""
    # A list's entries have no budget, metadata and result.
    page = json.loads(msgspec.json.encode(TaskPage(tasks=list(tasks), next_cursor=None)))
    for entry in page["tasks"]:
        del entry["budget"], entry["metadata"], entry["result"]
    server.tell("GET", TASKS, 200, page)
