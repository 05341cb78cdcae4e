"""Received tasks and plans for tests."""

from typing import Any

import msgspec

from octollm.events import schema
from octollm.events.carrier import PlanDraft, Step, StepDraft, TaskPlanned, TaskReceived
from octollm.planner import caller
from octollm.planner.drafts import fill
from octollm.planner.outcome import Outcome


def received(goal: str = "Echo hello world", **fields: Any) -> TaskReceived:
    """A task as reflex puts it on record; `fields` in their JSON form."""
    data = dict(schema.documents()["task.received"]["examples"][0]) | {"goal": goal} | fields
    schema.validate("task.received", data)
    return msgspec.convert(data, TaskReceived)


def step(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A caller's step in its JSON form; without an action it runs `true`."""
    return {"id": name, "action": command("true"), "depends_on": list(depends_on)} | fields


def command(*argv: str, **fields: Any) -> dict[str, Any]:
    """A command action of one stage in its JSON form."""
    return {"kind": "command", "pipeline": [list(argv)], **fields}


def plan(*steps: dict[str, Any]) -> list[Step]:
    """Steps as the planner fills them in."""
    return [fill(msgspec.convert(draft, StepDraft)) for draft in steps]


def own_plan(*steps: dict[str, Any], **fields: Any) -> Outcome:
    """What becomes of a task with a plan of the caller's own."""
    task = received(plan={"steps": list(steps)}, **fields)
    assert isinstance(task.plan, PlanDraft)
    return caller.plan(task, task.plan)


def planned(outcome: Outcome) -> TaskPlanned:
    """The outcome as a plan that the contract admits."""
    assert isinstance(outcome, TaskPlanned), outcome
    schema.encode(outcome)
    return outcome
