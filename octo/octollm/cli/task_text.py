"""A followed task as text: its plan with every step's state, then how it ended."""

from datetime import UTC, datetime

from rich.text import Text

from octollm.cli.event_line import SHORT_ID
from octollm.cli.failure import facts
from octollm.cli.task_view import StepState, StepView, TaskView
from octollm.cli.terminal import printable, shortened
from octollm.events.carrier import CriterionResult

_MARKS = {
    StepState.WAITING: ("○", "dim"),
    StepState.RUNNING: ("●", "yellow"),
    StepState.EXECUTED: ("✓", "green"),
    StepState.FAILED: ("✗", "red"),
    StepState.ABANDONED: ("–", "dim"),
}
_ENDS = {"completed": ("✓", "green"), "cancelled": ("■", "yellow"), "failed": ("✗", "red"), "rejected": ("✗", "red")}
_TITLE_LIMIT = 44
_SAID_LINES = 12
_EARLIER_LIMIT = 90


def duration(milliseconds: float) -> str:
    """`48 ms`, `1.2 s`, `3 min 20 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def dollars(micro_usd: int) -> str:
    """Millionths of a US dollar as dollars; as many digits as a small sum needs."""
    return "$0" if micro_usd == 0 else f"${micro_usd / 1_000_000:.6f}".rstrip("0")


def following(view: TaskView, now: datetime | None = None) -> Text:
    """The task while it runs; `now` gives running steps their time."""
    text = Text()
    text.append(f"task {view.task_id[:SHORT_ID]}  ", style="bold")
    text.append(f"{shortened(view.goal or '', 100)}\n")
    for placeholder in view.placeholders:
        text.append(f"  {placeholder} is a literal placeholder: the vault is off\n", style="yellow")
    for code, message in view.plan_failures:
        if message != view.message:
            text.append(f"  {code}  {printable(message)}\n", style="red")
    if view.steps:
        by = view.provider or ""
        model = f" ({view.model})" if view.model else ""
        text.append(f"  plan {view.plan_version}: {len(view.steps)} step(s) by {printable(by + model)}\n", style="dim")
        numbers = {step_id: number for number, step_id in enumerate(view.steps, 1)}
        for step in view.steps.values():
            text.append_text(_step(step, numbers, now, view.ended))
    elif not view.ended:
        text.append("  planning …\n", style="dim")
    if view.cancel_requested and not view.ended:
        text.append("  cancelling …\n", style="yellow")
    return text


def outcome(view: TaskView) -> Text:
    """How the task ended: status, result and criteria, or code, cause and what to do next."""
    mark, style = _ENDS[view.status]
    text = Text()
    text.append(f"{mark} {view.status}", style=f"bold {style}")
    used = view.result or view.spent
    if used:
        text.append(f" after {duration(used.total_duration_ms)} · {used.steps_executed} step(s)")
        text.append(f" · {used.tokens} tokens · {dollars(used.cost_micro_usd)}")
    text.append("\n")
    if view.code:
        text.append(f"  {view.code}  ", style=f"bold {style}")
        text.append(f"{printable(view.message or '')}\n")
        for pointer, reason in view.reasons:
            text.append(f"  {printable(pointer) or '/'}: {printable(reason)}\n")
        text.append(f"  → {facts(view.code)[0]}\n", style="cyan")
    if view.result:
        for criterion in view.result.criteria:
            text.append_text(_criterion(criterion))
        text.append(printable(view.result.output))
        if view.result.output and not view.result.output.endswith("\n"):
            text.append("\n")
    return text


def _step(step: StepView, numbers: dict[str, int], now: datetime | None, ended: bool) -> Text:
    mark, style = _MARKS[step.state]
    text = Text(f"  {numbers[step.id]:>2} ")
    text.append(f"{mark} ", style=style)
    text.append(f"{shortened(step.title, _TITLE_LIMIT):<{_TITLE_LIMIT}}")
    elapsed: float | None = step.duration_ms
    if step.state is StepState.RUNNING and now and step.dispatched_at:
        elapsed = max(0.0, (now - step.dispatched_at).total_seconds() * 1000)
    text.append(f" {duration(elapsed) if elapsed is not None else '':>9}", style="dim")
    if step.depends_on:
        needs = ", ".join(str(numbers.get(other, other)) for other in step.depends_on)
        text.append(f"  needs {needs}", style="dim")
    if step.attempt > 1:
        text.append(f"  attempt {step.attempt}", style="yellow")
    text.append("\n")
    for attempt, code, message in step.earlier:
        text.append(f"       attempt {attempt}: {code}  {shortened(message, _EARLIER_LIMIT)}\n", style="dim")
    if step.state is StepState.FAILED and step.code:
        text.append(f"       {step.code}  ", style="bold red")
        text.append(f"{printable(step.message or '')}\n")
        for line in step.said.splitlines()[-_SAID_LINES:]:
            text.append(f"       │ {printable(line)}\n", style="dim")
        if ended:  # until then it may be tried again
            text.append(f"       → {facts(step.code)[0]}\n", style="cyan")
    return text


def _criterion(criterion: CriterionResult) -> Text:
    mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}[criterion.passed]
    text = Text()
    text.append(f"  {mark} ", style=style)
    text.append(f"{shortened(criterion.text, 120)}  ")
    return text.append(f"({criterion.how.value})\n", style="dim")


class Live:
    """The text of a task, drawn anew whenever a display refreshes."""

    def __init__(self, view: TaskView) -> None:
        self._view = view

    def __rich__(self) -> Text:
        text = following(self._view, datetime.now(UTC))
        text.rstrip()
        return text
