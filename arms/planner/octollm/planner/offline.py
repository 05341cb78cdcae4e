"""The planner that needs no key: recipes for a handful of goals, and an honest refusal of everything else.

A task with constraints or context is refused: a recipe can't honour them, and leaving them out could do what the caller
did not want. Prose acceptance criteria change nothing about a plan; they are left to whoever judges them.
"""

from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, TaskReceived
from octollm.planner.acceptance import complete
from octollm.planner.outcome import Outcome, certain_plan, failed_plan, invalid_request
from octollm.planner.recipes import book
from octollm.planner.recipes.recipe import Unsupported
from octollm.planner.validation import InvalidPlan

PROVIDER = "offline"

_ELSE = (
    "Without a model the planner knows goals like these: "
    + "; ".join(recipe.example for recipe in book.RECIPES)
    + ". For others configure a model (OCTO_PLANNER__PROVIDER=openai, OCTO_PLANNER__MODEL, and OPENAI_API_KEY or"
    " OCTO_PLANNER__BASE_URL), or submit a plan of your own with the task."
)


def plan(task: TaskReceived) -> Outcome:
    """The plan of the recipe that fits the goal, or PLANNING_FAILED with what could be asked instead."""
    given = [name for name, value in (("constraints", task.constraints), ("context", task.context)) if value]
    if given:
        return _refusal(
            f"The offline planner can't take {' and '.join(given)} into account; put what matters in the goal."
        )
    try:
        steps = book.steps_for(task.goal)
        if steps is None:
            return _refusal("The offline planner has no recipe for this goal.")
        return certain_plan(PROVIDER, complete(steps, task.acceptance_criteria))
    except Unsupported as reason:
        return _refusal(f"The offline planner can't do this: {reason}.")
    except InvalidPlan as error:
        return invalid_request(PROVIDER, error)


def _refusal(reason: str) -> PlanFailed:
    message = f"{reason} {_ELSE}"
    return failed_plan(PROVIDER, ErrorCode.PLANNING_FAILED, PlanFailureClass.unsupported, message)
