"""The task's machine criteria become part of the plan, so that the executor decides them.

* A criterion that reads a file, or the output of a step that it names, is checked as it is. One that names no target
  reads the task's output: that of the last command step, in the plan's order, that isn't redirected. All of these make
  one final check step, `acceptance`, after every other step.
* An exit code is a fact about a program, and a check runs none. So a task's `exit_code` moves to the front of the
  acceptance of the last command step.

Either way the step says in `verifies` which of the task's criteria it decides: the k-th index is decided by the k-th
of the step's checks (a check step's criteria, a command step's acceptance), the order in which `step.executed` reports
them.
"""

from collections.abc import Sequence

from msgspec import UNSET
from msgspec.structs import replace

from octollm.events.carrier import (
    CheckAction,
    CommandAction,
    Criterion,
    Effect,
    ExitCodeCriterion,
    FileExistsCriterion,
    MachineCriterion,
    Step,
)
from octollm.planner import graph
from octollm.planner.drafts import DEFAULT_LIMITS, EXECUTOR
from octollm.planner.validation import InvalidPlan, Violation, reading_fault, violations, writes_output

_MAX_ACCEPTANCE = 10


def complete(steps: Sequence[Step], criteria: Sequence[Criterion], programs: Sequence[str] | None = None) -> list[Step]:
    """The whole plan: `steps`, checked, with the task's machine criteria worked in. Raises InvalidPlan."""
    found = violations(steps, programs=programs)
    if found:
        raise InvalidPlan(found)
    machine = {index: criterion for index, criterion in enumerate(criteria) if not isinstance(criterion, str)}
    exits = {index: criterion for index, criterion in machine.items() if isinstance(criterion, ExitCodeCriterion)}
    checked = {index: criterion for index, criterion in machine.items() if index not in exits}
    plan = _with_exit_codes(list(steps), exits) if exits else list(steps)
    if checked:
        plan.append(_acceptance_step(plan, checked))
    found = violations(plan, criteria, programs)
    if found:
        raise InvalidPlan(found)
    return plan


def _with_exit_codes(plan: list[Step], exits: dict[int, ExitCodeCriterion]) -> list[Step]:
    last = next((step for step in reversed(plan) if isinstance(step.action, CommandAction)), None)
    if last is None:
        fault = "asks for an exit code, but the plan runs no command"
        raise InvalidPlan([Violation(_place(index), "exit_code", fault) for index in exits])
    own = [criterion for criterion in last.acceptance if isinstance(criterion, ExitCodeCriterion)]
    if len({criterion.code for criterion in (*exits.values(), *own)}) > 1:
        fault = f"step {last.id} can't end with this exit code and with another that is asked of it"
        raise InvalidPlan([Violation(_place(index), "exit_code", fault) for index in exits])
    others = [criterion for criterion in last.acceptance if not isinstance(criterion, ExitCodeCriterion)]
    if len(exits) + len(others) > _MAX_ACCEPTANCE:
        fault = f"step {last.id} has too many acceptance criteria to take this one"
        raise InvalidPlan([Violation(_place(index), "exit_code", fault) for index in exits])
    judged = replace(last, acceptance=[*exits.values(), *others], verifies=list(exits))
    return [judged if step.id == last.id else step for step in plan]


def _acceptance_step(plan: list[Step], checked: dict[int, MachineCriterion]) -> Step:
    output = next((step for step in reversed(plan) if writes_output(step)), None)
    everything = [step.id for step in plan]
    commands = [step.id for step in plan if isinstance(step.action, CommandAction)]
    faults = []
    criteria = []
    for index, criterion in checked.items():
        fault = reading_fault(criterion, everything, commands)
        if fault is None and _reads_output(criterion):
            if output is None:
                fault = "reads an output, but no step of the plan writes one; give it a path"
            else:
                criterion = replace(criterion, step=output.id)
        if fault:
            faults.append(Violation(_place(index), "readable_criterion", fault))
        criteria.append(criterion)
    if faults:
        raise InvalidPlan(faults)
    return Step(
        id=_free_id("acceptance", everything),
        title="Check the task's acceptance criteria",
        arm=EXECUTOR,
        action=CheckAction(criteria=criteria),
        depends_on=graph.leaves({step.id: step.depends_on for step in plan}),
        acceptance=[],
        effect=Effect.pure,
        limits=DEFAULT_LIMITS,
        verifies=list(checked),
    )


def _reads_output(criterion: MachineCriterion) -> bool:
    if isinstance(criterion, ExitCodeCriterion | FileExistsCriterion):
        return False
    return criterion.path is UNSET and criterion.step is UNSET


def _free_id(wanted: str, taken: Sequence[str]) -> str:
    if wanted not in taken:
        return wanted
    number = 2
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"


def _place(index: int) -> str:
    return f"criterion {index} of the task"
