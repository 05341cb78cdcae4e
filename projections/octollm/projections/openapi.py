"""The OpenAPI document's schemas: the views' types and the contract's own, under their names."""

import json
from http import HTTPStatus
from typing import Any

import msgspec

from octollm.events import schema
from octollm.projections import views

_COMPONENT = "#/components/schemas/"
_SHARED = ("contract", "error", "plan", "record")

_TASK = {
    "task_id": "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21",
    "status": "completed",
    "phase": "done",
    "goal": "Echo hello world",
    "priority": "medium",
    "retry_of": None,
    "error": None,
    "plan_version": 1,
    "steps": {"total": 1, "done": 1, "running": []},
    "cost_usd": 0.0021,
    "cost_micro_usd": 2100,
    "tokens": 412,
    "duration_ms": 48,
    "version": 5,
    "last_seq": 1207,
    "undecodable": 0,
    "created_at": "2026-11-22T12:00:00.000113Z",
    "updated_at": "2026-11-22T12:00:00.048204Z",
    "cancel_requested_at": None,
    "finished_at": "2026-11-22T12:00:00.048204Z",
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "Accepted": {"task_id": _TASK["task_id"], "seq": 1203, "status": "pending"},
    "CancelAccepted": {"task_id": _TASK["task_id"], "status": "cancel_requested"},
    "ResumeAccepted": {"task_id": _TASK["task_id"], "status": "resume_requested"},
    "TaskPage": {"tasks": [_TASK], "next_cursor": "MTIwMw"},
    "TaskView": _TASK
    | {
        "budget": {"max_tokens": 10000, "max_cost_usd": 1.0, "max_time_seconds": 300, "max_retries": 3},
        "metadata": {},
        "result": {
            "output": "hello world\n",
            "steps_executed": 1,
            "total_duration_ms": 48,
            "cost_micro_usd": 2100,
            "tokens": 412,
            "criteria": [{"text": "contains 'hello world'", "passed": True, "how": "machine"}],
        },
    },
    "Problem": {
        "type": "urn:octollm:error:NOT_FOUND",
        "title": "No such task",
        "status": 404,
        "detail": "no task 3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21; the log was looked through up to sequence 1207",
        "code": "NOT_FOUND",
        "hint": "Check the id; octo ls lists the tasks.",
        "task_id": _TASK["task_id"],
        "projected_seq": 1207,
    },
}


def answers(success: type[msgspec.Struct], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the first status is success, all others are problems."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        media, name = "application/problem+json", "Problem"
        if status == statuses[0]:
            media, name = "application/json", success.__name__
        content: dict[str, Any] = {"schema": {"$ref": f"{_COMPONENT}{name}"}}
        if name in EXAMPLES and (name != "Problem" or status == HTTPStatus.NOT_FOUND):
            content["example"] = EXAMPLES[name]
        found[status] = {
            "description": HTTPStatus(status).phrase,
            "headers": {"Octo-Projected-Seq": {"$ref": "#/components/headers/Octo-Projected-Seq"}},
            "content": {media: content},
        }
    return found


def submission() -> dict[str, Any]:
    """The request body of a submission, with the contract's examples."""
    examples = schema.documents()["task.submit"]["examples"]
    content = {
        "schema": {"$ref": f"{_COMPONENT}TaskSubmit"},
        "examples": {f"example{number}": {"value": value} for number, value in enumerate(examples, 1)},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Adds to FastAPI's document the schemas and headers that the routes refer to."""
    components = document.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | _contract() | _views()
    # FastAPI's own description of a validation error: ours is Problem.
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["headers"] = {
        "Octo-Projected-Seq": {
            "description": "The answer holds every event of the log up to this sequence.",
            "schema": {"type": "integer", "minimum": 0},
        }
    }
    return document


def _views() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(views.ANSWERS, ref_template=_COMPONENT + "{name}")
    return components


def _contract() -> dict[str, Any]:
    """The event contract's shared definitions and the submission, with their references made local."""
    documents = schema.documents()
    found: dict[str, Any] = {}
    for name in _SHARED:
        found |= documents[name].get("$defs", {})
    found["TaskSubmit"] = {key: value for key, value in documents["task.submit"].items() if not key.startswith("$")}
    local: dict[str, Any] = json.loads(json.dumps(found), object_hook=_localised)
    return local


def _localised(node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if isinstance(reference, str):
        return node | {"$ref": _COMPONENT + reference.rpartition("/")[2]}
    return node
