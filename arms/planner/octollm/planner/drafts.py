"""A caller's draft of a step, filled in.

What a caller leaves out: title from the action, arm `executor`, no dependencies (so steps without `depends_on` run in
parallel), no acceptance criteria, effect `side_effecting` (the safe guess: never run twice), default limits. A `retry`
goes along as it is, and without one the orchestrator's rules hold.
"""

from typing import TypeVar

from msgspec import UNSET, UnsetType

from octollm.events.carrier import (
    Action,
    CheckAction,
    CommandAction,
    Effect,
    FileAction,
    HttpAction,
    Limits,
    LimitsDraft,
    Op,
    ScriptAction,
    Step,
    StepDraft,
)

EXECUTOR = "executor"

DEFAULT_LIMITS = Limits(wall_ms=30_000, memory_bytes=512 * 1024 * 1024, output_bytes=1024 * 1024)

_VERBS = {Op.write: "Write", Op.append: "Append to", Op.mkdir: "Make the directory", Op.delete: "Delete"}

_TITLE_LENGTH = 200

T = TypeVar("T")


def fill(draft: StepDraft) -> Step:
    """The step that `draft` means."""
    return Step(
        id=draft.id,
        title=_given(draft.title, title_of(draft.action)),
        arm=_given(draft.arm, EXECUTOR),
        action=draft.action,
        depends_on=_given(draft.depends_on, []),
        acceptance=_given(draft.acceptance, []),
        effect=_given(draft.effect, Effect.side_effecting),
        limits=_limits(draft.limits),
        retry=draft.retry,
    )


def title_of(action: Action) -> str:
    """What an action does, for people: `Run ls | wc`, `Write notes.txt`, `Check 2 criteria`."""
    match action:
        case CommandAction():
            title = "Run " + " | ".join(stage[0] or '""' for stage in action.pipeline)
        case CheckAction():
            count = len(action.criteria)
            title = "Check one criterion" if count == 1 else f"Check {count} criteria"
        case HttpAction():
            title = f"{action.method.value} {action.url}"
        case ScriptAction():
            title = f"Run a {action.lang.value} script"
        case FileAction():
            title = f"{_VERBS[action.op]} {action.path}"
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"


def _limits(draft: LimitsDraft | UnsetType) -> Limits:
    if draft is UNSET:
        return DEFAULT_LIMITS
    return Limits(
        wall_ms=_given(draft.wall_ms, DEFAULT_LIMITS.wall_ms),
        memory_bytes=_given(draft.memory_bytes, DEFAULT_LIMITS.memory_bytes),
        output_bytes=_given(draft.output_bytes, DEFAULT_LIMITS.output_bytes),
    )


def _given(value: T | UnsetType, default: T) -> T:
    return default if value is UNSET else value
