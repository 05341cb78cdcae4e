"""One event as one line for people, or one JSON object for machines."""

from typing import TYPE_CHECKING, Any

from octollm.cli.terminal import shortened
from octollm.events.carrier import (
    CheckAction,
    CommandAction,
    FileAction,
    HttpAction,
    PlanFailed,
    PlanRequested,
    ScriptAction,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskFailed,
    TaskPlanned,
    TaskReceived,
    TaskRejected,
)
from octollm.events.envelope import Event, Undecodable

if TYPE_CHECKING:
    from rich.text import Text

SUMMARY_LIMIT = 120
SHORT_ID = 8

_STYLES = {
    "task.completed": "green",
    "step.executed": "green",
    "task.failed": "red",
    "step.failed": "red",
    "plan.failed": "red",
    "task.rejected": "red",
    "task.cancelled": "yellow",
    "task.cancel_requested": "yellow",
}


def document(event: Event) -> dict[str, Any]:
    """The event with its envelope: where it is stored, its headers as they are, its payload."""
    return {
        "seq": event.seq,
        "stored_at": event.stored_at.isoformat().replace("+00:00", "Z"),
        "subject": event.subject,
        "headers": dict(event.headers),
        "payload": event.data,
    }


def line(event: Event) -> "Text":
    """`time #seq kind task summary`; the time is the broker's, in the local zone."""
    from rich.text import Text

    at = event.stored_at.astimezone()
    text = Text()
    text.append(f"{at:%H:%M:%S}.{at.microsecond // 1000:03} #{event.seq:<5} ", style="dim")
    text.append(f"{event.kind:<21} ", style=_STYLES.get(event.kind, ""))
    text.append(f"{event.task_id[:SHORT_ID]}  ", style="cyan")
    return text.append(shortened(summary(event), SUMMARY_LIMIT))


def summary(event: Event) -> str:
    """What the event says, in a few words."""
    try:
        payload = event.payload
    except Undecodable as error:
        return f"can't be read: {error}"
    match payload:
        case TaskReceived():
            kept = len(payload.verdict.redactions)
            replaced = f" ({kept} value(s) replaced)" if kept else ""
            return f"{payload.goal}{replaced}"
        case TaskRejected() | PlanFailed() | TaskFailed():
            return f"{payload.code.value}: {payload.message}"
        case TaskPlanned():
            return f"plan {payload.plan_version}: {len(payload.steps)} step(s) by {payload.provider}"
        case PlanRequested(requested_by=str() as by):
            return f"attempt {payload.attempt}, {payload.reason.value} by {by}"
        case PlanRequested():
            return f"attempt {payload.attempt}, {payload.reason.value}"
        case StepDispatched():
            return f"{payload.step.id}{_again(payload.attempt)}: {act(payload.step.action)}"
        case StepExecuted():
            said = payload.output.stdout.head or payload.output.stderr.head
            took = f"exit {payload.exit_code} in {payload.usage.duration_ms} ms"
            return f"{payload.step_id}{_again(payload.attempt)}: {took}: {said}"
        case StepFailed():
            return f"{payload.step_id}{_again(payload.attempt)}: {payload.code.value}: {payload.message}"
        case TaskCompleted(result=result):
            return f"{result.steps_executed} step(s) in {result.total_duration_ms} ms: {result.output}"
        case TaskCancelRequested() | TaskCancelled():
            why = f": {payload.reason}" if isinstance(payload.reason, str) else ""
            return f"by {payload.requested_by}{why}"
        case _:
            return ""


def _again(attempt: int) -> str:
    return f" (attempt {attempt})" if attempt > 1 else ""


def act(action: CommandAction | FileAction | HttpAction | ScriptAction | CheckAction) -> str:
    """What a step does, as one would type it."""
    match action:
        case CommandAction():
            return " | ".join(" ".join(stage) for stage in action.pipeline)
        case FileAction():
            return f"{action.op.value} {action.path}"
        case HttpAction():
            return f"{action.method.value} {action.url}"
        case ScriptAction():
            return f"{action.lang.value} script of {len(action.source.splitlines())} lines"
        case CheckAction():
            return f"check {len(action.criteria)} criteria"
