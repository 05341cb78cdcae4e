"""All recipes, in the order in which they are tried: from the most particular to the most general."""

from octollm.events.carrier import Step
from octollm.planner.recipes import arithmetic, clock, echo, files, listing, sequences
from octollm.planner.recipes.grammar import normalise
from octollm.planner.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (
    *clock.RECIPES,
    *sequences.RECIPES,
    *arithmetic.RECIPES,
    *listing.RECIPES,
    *files.RECIPES,
    *echo.RECIPES,
)


def steps_for(goal: str) -> list[Step] | None:
    """The plan of the first recipe that matches the whole goal; None if none does. Raises Unsupported."""
    text = normalise(goal)
    for recipe in RECIPES:
        if match := recipe.pattern.fullmatch(text):
            return recipe.build(match)
    return None
