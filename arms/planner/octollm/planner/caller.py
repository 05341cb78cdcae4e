"""The caller's own plan: checked and filled in, never changed in what it does. No model is asked."""

from octollm.events.carrier import PlanDraft, TaskReceived
from octollm.planner.acceptance import complete
from octollm.planner.drafts import fill
from octollm.planner.outcome import Outcome, certain_plan, invalid_request
from octollm.planner.validation import InvalidPlan

PROVIDER = "caller"


def plan(task: TaskReceived, draft: PlanDraft) -> Outcome:
    """The caller's plan as one that can run, or INVALID_REQUEST naming step and rule.

    Which programs may run is left to the executor's policy: a caller may know more about it than the planner does.
    """
    try:
        return certain_plan(PROVIDER, complete([fill(step) for step in draft.steps], task.acceptance_criteria))
    except InvalidPlan as error:
        return invalid_request(PROVIDER, error)
