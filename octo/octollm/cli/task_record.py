"""Tasks as the REST view gives them: found by the beginning of an id, and read into what is shown."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from octollm.cli.api import Api
from octollm.cli.failure import Exit, Failure
from octollm.cli.task_view import StepState, StepView, TaskView, written
from octollm.events.carrier import Output, Result, Spent

TASKS = "/api/v1/tasks"
SEARCHED = 1000
"""Newest tasks among which the beginning of an id is looked up."""

WAIT_S = 10
"""How long the view may take to get to a sequence that was asked for."""

_PAGE = 100
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f-]{1,36}")
_STATES = {
    "running": StepState.RUNNING,
    "executed": StepState.EXECUTED,
    "failed": StepState.FAILED,
    "abandoned": StepState.ABANDONED,
}


def resolve(api: Api, text: str) -> str:
    """The whole id for the beginning of one; raises Failure when no task, or more than one, begins so."""
    wanted = text.strip().lower()
    if _UUID.fullmatch(wanted):
        return wanted
    if not _BEGINNING.fullmatch(wanted):
        raise Failure.usage(f"{text!r} is no task id", "give a UUID or its beginning; `octo ls` lists the tasks")
    found = [task["task_id"] for task in newest(api, SEARCHED) if task["task_id"].startswith(wanted)]
    if not found:
        raise Failure.of_code("NOT_FOUND", f"none of the newest {SEARCHED} tasks has an id that begins with {wanted}")
    if len(found) > 1:
        raise Failure.usage(f"{len(found)} tasks begin with {wanted}: {', '.join(found[:5])}", "give more of the id")
    return str(found[0])


def require_unended(api: Api, task_id: str) -> None:
    """Raises Failure for a task that is unknown or has ended; a view that is down says nothing against it."""
    try:
        task = api.get(f"{TASKS}/{task_id}")
    except Failure as failure:
        if failure.exit_code == Exit.INFRASTRUCTURE:
            return
        raise
    if task["finished_at"] is not None:
        raise Failure.of_code("CONFLICT", f"it has ended already: {task['status']}", task_id=task_id)


def newest(api: Api, limit: int, statuses: Sequence[str] = (), min_seq: int | None = None) -> list[dict[str, Any]]:
    """Up to `limit` tasks with any of these statuses, newest first."""
    tasks: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(tasks) < limit:
        page = api.get(
            TASKS, limit=min(_PAGE, limit - len(tasks)), cursor=cursor, status=list(statuses), **fresh(min_seq)
        )
        tasks += page["tasks"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    return tasks


def read(api: Api, task_id: str, min_seq: int | None) -> dict[str, Any]:
    """`{task, plan, steps, placeholders}`; `min_seq` makes the view wait until it has got that far."""
    task = api.get(f"{TASKS}/{task_id}", **fresh(min_seq))
    planned = task["plan_version"] is not None
    first = api.get(f"{TASKS}/{task_id}/events", limit=1)["events"][0]
    verdict = (first["payload"] or {}).get("verdict") or {}
    return {
        "task": task,
        "plan": api.get(f"{TASKS}/{task_id}/plan") if planned else None,
        "steps": _attempts(api, task_id) if planned else [],
        "placeholders": list(dict.fromkeys(found["placeholder"] for found in verdict.get("redactions", []))),
    }


def fresh(min_seq: int | None) -> dict[str, Any]:
    """Parameters that make the view wait until it holds the log up to `min_seq`."""
    return {} if min_seq is None else {"min_seq": min_seq, "wait": WAIT_S}


def _attempts(api: Api, task_id: str) -> list[dict[str, Any]]:
    """Every attempt at a step, in the order in which they began."""
    attempts: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = api.get(f"{TASKS}/{task_id}/steps", limit=_PAGE, cursor=cursor)
        attempts += page["steps"]
        cursor = page["next_cursor"]
        if not cursor:
            return attempts


def view_of(record: dict[str, Any]) -> TaskView:
    """What `read` gives, as what is shown."""
    task, plan = record["task"], record["plan"]
    error = task["error"] or {}
    view = TaskView(
        task_id=task["task_id"],
        goal=task["goal"],
        status=task["status"],
        plan_version=task["plan_version"] or 0,
        placeholders=tuple(record["placeholders"]),
        code=error.get("code"),
        message=error.get("message"),
        reasons=tuple((reason.get("field", ""), reason["message"]) for reason in error.get("reasons", [])),
        result=msgspec.convert(task["result"], Result) if task["result"] else None,
        cancel_requested=task["cancel_requested_at"] is not None,
        last_seq=task["last_seq"],
    )
    if view.ended and not view.result and task["duration_ms"] is not None:
        view.spent = Spent(
            steps_executed=task["steps"]["done"],
            total_duration_ms=task["duration_ms"],
            cost_micro_usd=task["cost_micro_usd"],
            tokens=task["tokens"],
        )
    if plan:
        view.provider, view.model = plan["provider"], plan["model"]
        view.steps = {
            step["id"]: StepView(id=step["id"], title=step["title"], depends_on=tuple(step["depends_on"]))
            for step in plan["steps"]
        }
    for attempt in record["steps"]:
        step = view.steps.get(attempt["step_id"])
        if step and attempt["plan_version"] == view.plan_version:
            _tell(step, attempt)
    return view


def _tell(step: StepView, attempt: dict[str, Any]) -> None:
    error = attempt["error"] or {}
    began, ended = (
        datetime.fromisoformat(attempt[name]) if attempt[name] else None for name in ("dispatched_at", "ended_at")
    )
    step.begin(attempt["attempt"], began)
    step.state = _STATES[attempt["status"]]
    step.code, step.message = error.get("code"), error.get("message")
    failed = step.state is StepState.FAILED and attempt["output"]
    step.said = written(msgspec.convert(attempt["output"], Output)) if failed else ""
    if attempt["usage"]:
        step.duration_ms = attempt["usage"]["duration_ms"]
    elif began and ended:
        step.duration_ms = round((ended - began).total_seconds() * 1000)
