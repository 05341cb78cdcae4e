"""What makes a plan valid beyond its schema. Pure: a plan in, its violations out.

Rules, by name:

* `unique_ids`: no two steps share an id.
* `known_dependencies`, `acyclic`: dependencies exist and form a directed acyclic graph.
* `known_arm`: the arm is one that can be dispatched to.
* `file_content`: `write` and `append` carry text or base64 (valid, not both; neither for an empty file), other
  operations none; `delete` sets no mode.
* `argument`: no argument holds a NUL, which no program could be given.
* `known_program`: where programs are given, every stage of a pipeline runs one of them.
* `readable_criterion`: a criterion has something to read. One target at most; a step that it names is a command that
  has run before; without a target only a command step reads its own output, and only if that is not redirected.
* `exit_code`: an exit code is asked only of a step's own action, and a file or check step has no other than 0.
* `retry`: a side-effecting step asks for no further attempt after one that ran.
* `verifies`: indices of machine criteria of the task, each decided by one check of the step.
"""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from octollm.events.carrier import (
    CheckAction,
    CommandAction,
    Criterion,
    Effect,
    ExitCodeCriterion,
    FileAction,
    FileExistsCriterion,
    MachineCriterion,
    Op,
    Step,
)
from octollm.planner import graph
from octollm.planner.drafts import EXECUTOR

ARMS = frozenset({EXECUTOR})


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule. `place` is `step <id>`, `criterion <index> of the task` or `the plan`."""

    place: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message} ({self.rule})"


class InvalidPlan(ValueError):
    """A plan breaks rules: `violations`, at least one."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = tuple(violations)


def violations(
    steps: Sequence[Step], criteria: Sequence[Criterion] = (), programs: Collection[str] | None = None
) -> list[Violation]:
    """Every broken rule, in the plan's order.

    criteria: the task's acceptance criteria, that `verifies` points into. programs: what the executor runs; None leaves
    that to the executor's policy.
    """
    found = _identity(steps)
    if found:  # Ids that mean two steps make every other finding ambiguous.
        return found
    dependencies = {step.id: step.depends_on for step in steps}
    found = [
        Violation(f"step {step.id}", "known_dependencies", f"depends on {other!r}, which is not in the plan")
        for step in steps
        for other in step.depends_on
        if other not in dependencies
    ]
    try:
        before = graph.ancestors(dependencies)
    except graph.Cycle as cycle:
        return [*found, Violation(f"step {cycle.path[0]}", "acyclic", f"the steps wait for one another: {cycle}")]
    commands = {step.id for step in steps if isinstance(step.action, CommandAction)}
    for step in steps:
        found += _arm(step)
        found += _action(step, programs)
        found += _retry(step)
        found += _criteria(step, before[step.id], commands)
        found += _verifies(step, criteria)
    return found


def _identity(steps: Sequence[Step]) -> list[Violation]:
    seen: set[str] = set()
    found = []
    for step in steps:
        if step.id in seen:
            found.append(Violation(f"step {step.id}", "unique_ids", "its id is taken by an earlier step"))
        seen.add(step.id)
    return found


def _arm(step: Step) -> list[Violation]:
    if step.arm in ARMS:
        return []
    return [
        Violation(f"step {step.id}", "known_arm", f"no arm is called {step.arm!r}; known: {', '.join(sorted(ARMS))}")
    ]


def _action(step: Step, programs: Collection[str] | None) -> list[Violation]:
    place = f"step {step.id}"
    match step.action:
        case FileAction() as action:
            fault = _file_fault(action)
            return [Violation(place, "file_content", fault)] if fault else []
        case CommandAction(pipeline=pipeline):
            found = [
                Violation(place, "argument", f"an argument of {stage[0]!r} holds a NUL")
                for stage in pipeline
                if any("\0" in argument for argument in stage)
            ]
            named = dict.fromkeys(stage[0] for stage in pipeline)
            found += [
                Violation(place, "known_program", f"{name!r} can't be run here; use one of: {', '.join(programs)}")
                for name in named
                if programs is not None and name not in programs
            ]
            return found
        case _:
            return []


def _retry(step: Step) -> list[Violation]:
    if step.effect is not Effect.side_effecting or step.retry is UNSET or step.retry.on is UNSET:
        return []
    message = (
        f"a side-effecting step can't run again after {step.retry.on[0]}; drop retry.on, or say idempotent if running "
        "it again changes nothing more"
    )
    return [Violation(f"step {step.id}", "retry", message)]


def _file_fault(action: FileAction) -> str | None:
    given = [name for name, value in (("text", action.text), ("base64", action.base64)) if value is not UNSET]
    if action.op in (Op.mkdir, Op.delete) and given:
        return f"{action.op} takes no {given[0]}"
    if action.op is Op.delete and action.mode is not UNSET:
        return "delete takes no mode"
    if len(given) > 1:
        return "takes text or base64, not both"
    if action.base64 is not UNSET:
        try:
            base64.b64decode(action.base64, validate=True)
        except binascii.Error:
            return "its base64 is not valid"
    return None


def _criteria(step: Step, before: Collection[str], commands: Collection[str]) -> list[Violation]:
    place = f"step {step.id}"
    found = []
    for index, criterion in enumerate(step.acceptance):
        fault = reading_fault(criterion, before, commands)
        if isinstance(criterion, ExitCodeCriterion):
            if not isinstance(step.action, CommandAction) and criterion.code != 0:
                message = f"acceptance {index}: only a command can end with {criterion.code}"
                found.append(Violation(place, "exit_code", message))
        elif fault is None and not _has_target(criterion) and not writes_output(step):
            fault = "reads an output that this step does not write; give it a path or a step"
        if fault:
            found.append(Violation(place, "readable_criterion", f"acceptance {index}: {fault}"))
    if isinstance(step.action, CheckAction):
        for index, criterion in enumerate(step.action.criteria):
            if isinstance(criterion, ExitCodeCriterion):
                message = (
                    f"criterion {index}: a check runs nothing; put exit_code on the acceptance of the command's step"
                )
                found.append(Violation(place, "exit_code", message))
                continue
            fault = reading_fault(criterion, before, commands)
            if fault is None and not _has_target(criterion):
                fault = "reads nothing; give it a path or a step"
            if fault:
                found.append(Violation(place, "readable_criterion", f"criterion {index}: {fault}"))
    return found


def reading_fault(criterion: MachineCriterion, before: Collection[str], commands: Collection[str]) -> str | None:
    """What is wrong with the target that a criterion names, if it names one.

    before: steps that have run when it is checked. commands: steps whose action is a command.
    """
    if isinstance(criterion, ExitCodeCriterion | FileExistsCriterion):
        return None
    if criterion.step is UNSET:
        return None
    if criterion.path is not UNSET:
        return "names a path and a step; keep one"
    if criterion.step not in before:
        return f"reads step {criterion.step!r}, which is not among the steps that have run before"
    if criterion.step not in commands:
        return f"reads step {criterion.step!r}, which is not a command and writes no output"
    return None


def writes_output(step: Step) -> bool:
    """Whether the step has an output of its own: a command that isn't redirected."""
    return isinstance(step.action, CommandAction) and step.action.redirect is UNSET


def _has_target(criterion: MachineCriterion) -> bool:
    if isinstance(criterion, ExitCodeCriterion):
        return False
    return criterion.path is not UNSET or (
        not isinstance(criterion, FileExistsCriterion) and criterion.step is not UNSET
    )


def _verifies(step: Step, criteria: Sequence[Criterion]) -> list[Violation]:
    if step.verifies is UNSET:
        return []
    place = f"step {step.id}"
    checks = len(step.acceptance) + (len(step.action.criteria) if isinstance(step.action, CheckAction) else 0)
    found = []
    if len(set(step.verifies)) != len(step.verifies):
        found.append(Violation(place, "verifies", "names a criterion of the task twice"))
    if len(step.verifies) > checks:
        found.append(Violation(place, "verifies", f"decides {len(step.verifies)} criteria with {checks} checks"))
    for index in step.verifies:
        if index >= len(criteria):
            found.append(Violation(place, "verifies", f"the task has no criterion {index}"))
        elif isinstance(criteria[index], str):
            found.append(Violation(place, "verifies", f"criterion {index} of the task is prose: no machine decides it"))
    return found
