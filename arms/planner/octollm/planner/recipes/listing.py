"""List and count: `List the files and count them`, `How many files are there in docs?`"""

import re
from functools import partial

from octollm.events.carrier import Step
from octollm.planner.recipes.grammar import PATH, phrase, workspace_path
from octollm.planner.recipes.recipe import Recipe, check, command, ids, printed_like

_FILES = r"(?:(?:all|every|the|all the|all of the) )?(?:files?|entries|contents?)(?: and (?:directories|folders))?"
_HERE = r"(?:the |this |my |your )?(?:(?:current|working) )*(?:workspace|directory|folder|dir)"
_WHERE = (
    r"(?: there(?: are)?)?"
    rf"(?: (?:in|of|inside|under) (?:{_HERE}"
    rf"|(?:the )?(?:(?:directory|folder) )?(?P<path>{PATH})(?: (?:directory|folder))?)"
    r")?(?: here| there)?"
)
_COUNT = (
    r"(?:count(?: (?:them|the files|the entries|how many there are))?"
    r"|(?:tell me|show|say|print) how many(?: there are)?"
    r"|(?:print|show|tell me) (?:the|their) (?:number|count|total)(?: of (?:files|them))?)"
)


def _plan(match: re.Match[str], *, entries: bool, count: bool) -> list[Step]:
    folder = workspace_path(match["path"]) if match["path"] else None
    argv = ["ls", "-1A"] if folder is None else ["ls", "-1A", folder]
    place = folder or "the workspace"
    steps: list[Step] = []
    if folder is not None:
        steps.append(command("inspect", f"Make sure that {place} is a directory", ["test", "-d", folder]))
    if entries:
        steps.append(command("list", f"List the entries of {place}", argv, after=ids(steps)))
    if count:
        steps.append(command("count", f"Count the entries of {place}", argv, ["wc", "-l"], after=ids(steps)))
        steps.append(
            check("verify", "Check that the count is a number", printed_like("count", r"^\s*\d+\s*$"), after=["count"])
        )
    return steps


RECIPES = (
    Recipe(
        example="List the files and count them",
        pattern=phrase(rf"(?:list|show)(?: me)? {_FILES}{_WHERE}(?:,? and then|,? and|,? then|[,;]) {_COUNT}"),
        build=partial(_plan, entries=True, count=True),
    ),
    Recipe(
        example="How many files are there?",
        pattern=phrase(rf"(?:count|how many|(?:tell me|print|show) how many) {_FILES}(?: are)?{_WHERE}"),
        build=partial(_plan, entries=False, count=True),
    ),
    Recipe(
        example="List the files",
        pattern=phrase(rf"(?:list|show)(?: me)? {_FILES}{_WHERE}"),
        build=partial(_plan, entries=True, count=False),
    ),
)
