"""A task as a person follows it: the fold of its events, for display only. No I/O, no clock."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from octollm.cli.failure import Exit, facts
from octollm.events.carrier import (
    Output,
    OutputStream,
    PlanFailed,
    Result,
    Spent,
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
from octollm.events.envelope import Event


class StepState(StrEnum):
    """How a step stands."""

    WAITING = "waiting"
    RUNNING = "running"
    EXECUTED = "executed"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(slots=True)
class StepView:
    """One step of the plan in force. `duration_ms` is the sandbox's wall clock, else the time between the events.

    `said` is what a failed step wrote, the end of it at least; `earlier` what became of the attempts before, as number,
    code and message.
    """

    id: str
    title: str
    depends_on: tuple[str, ...]
    state: StepState = StepState.WAITING
    attempt: int = 0
    dispatched_at: datetime | None = None
    duration_ms: int | None = None
    code: str | None = None
    message: str | None = None
    said: str = ""
    earlier: list[tuple[int, str, str]] = field(default_factory=list)

    def begin(self, attempt: int, at: datetime | None) -> None:
        """A further attempt runs from here on; what the one before came to is kept."""
        if self.state is StepState.FAILED:
            self.earlier.append((self.attempt, self.code or "", self.message or ""))
        self.state, self.attempt, self.dispatched_at = StepState.RUNNING, attempt, at
        self.duration_ms, self.code, self.message, self.said = None, None, None, ""


@dataclass(slots=True)
class TaskView:
    """A task so far. `status` is that of the REST view; `code` and `message` say why it ended without its goal."""

    task_id: str
    goal: str | None = None
    status: str = "pending"
    plan_version: int = 0
    provider: str | None = None
    model: str | None = None
    steps: dict[str, StepView] = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()
    plan_failures: list[tuple[str, str]] = field(default_factory=list)
    code: str | None = None
    message: str | None = None
    reasons: tuple[tuple[str, str], ...] = ()
    result: Result | None = None
    spent: Spent | None = None
    cancel_requested: bool = False
    last_seq: int = 0

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.status in ("completed", "failed", "cancelled", "rejected")

    @property
    def exit_code(self) -> int:
        """What `octo` ends with for a task that stands so."""
        if not self.ended:
            return Exit.WAITING
        return facts(self.code)[1] if self.code else Exit.DONE

    def apply(self, event: Event) -> None:
        """Takes the task's next event; raises Undecodable where its payload can't be read."""
        self.last_seq = event.seq
        match event.payload:
            case TaskReceived() as received:
                self.goal = received.goal
                # A value that occurs twice has one placeholder.
                self.placeholders = tuple(dict.fromkeys(found.placeholder for found in received.verdict.redactions))
            case TaskRejected() as rejected:
                self._end("rejected", rejected.code.value, rejected.message)
                self.reasons = tuple(
                    (reason.field_ if isinstance(reason.field_, str) else "", reason.message)
                    for reason in rejected.reasons
                )
            case TaskPlanned() as planned:
                self._plan(planned)
            case PlanFailed() as failed:
                self.plan_failures.append((failed.code.value, failed.message))
            case StepDispatched() as dispatched:
                step = self.steps.get(dispatched.step.id)
                if step and dispatched.plan_version == self.plan_version:
                    step.begin(dispatched.attempt, event.stored_at)
            case StepExecuted() as executed:
                self._step_ended(executed, StepState.EXECUTED, event.stored_at)
            case StepFailed() as failure:
                self._step_ended(failure, StepState.FAILED, event.stored_at)
            case TaskCancelRequested():
                self.cancel_requested = True
            case TaskCompleted(result=result):
                self.result = result
                self._end("completed")
            case TaskFailed(code=code, message=message, spent=spent):
                self.spent = spent
                self._end("failed", code.value, message)
            case TaskCancelled() as cancelled:
                self.spent = cancelled.spent
                why = f": {cancelled.reason}" if isinstance(cancelled.reason, str) else ""
                self._end("cancelled", "CANCELLED", f"cancelled by {cancelled.requested_by}{why}")

    def _plan(self, planned: TaskPlanned) -> None:
        self.status = "in_progress"
        self.plan_version = planned.plan_version
        self.provider = planned.provider
        self.model = planned.model if isinstance(planned.model, str) else None
        self.steps = {
            step.id: StepView(id=step.id, title=step.title, depends_on=tuple(step.depends_on)) for step in planned.steps
        }

    def _step_ended(self, ended: StepExecuted | StepFailed, state: StepState, at: datetime) -> None:
        step = self.steps.get(ended.step_id)
        if step is None or ended.plan_version != self.plan_version:
            return
        if step.state is not StepState.RUNNING or step.attempt != ended.attempt:
            return  # late: the attempt has been given up
        step.state = state
        if isinstance(ended, StepFailed):
            step.code, step.message = ended.code.value, ended.message
            step.said = written(ended.output) if isinstance(ended.output, Output) else ""
        usage = getattr(ended.usage, "duration_ms", None)
        if usage is None and step.dispatched_at is not None:
            usage = round((at - step.dispatched_at).total_seconds() * 1000)
        step.duration_ms = usage

    def _end(self, status: str, code: str | None = None, message: str | None = None) -> None:
        self.status, self.code, self.message = status, code, message
        for step in self.steps.values():
            if step.state is StepState.RUNNING:
                step.state = StepState.ABANDONED


def written(output: Output) -> str:
    """What a step wrote, standard error first, as far as it is on record."""
    return "".join(_recorded(stream) for stream in (output.stderr, output.stdout))


def _recorded(stream: OutputStream) -> str:
    text = f"{stream.head}\n[…]\n{stream.tail}" if stream.truncated else stream.head + stream.tail
    return text if not text or text.endswith("\n") else text + "\n"
