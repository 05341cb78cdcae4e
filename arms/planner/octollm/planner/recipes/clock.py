"""Date and time: `What is the date?`, `Echo the current time`, `Write the current date to date.txt`."""

import re

from octollm.events.carrier import RegexCriterion, Step
from octollm.planner.recipes.grammar import INTO, VERIFY, phrase, workspace_path
from octollm.planner.recipes.recipe import Recipe, check, command, ids, make_folder, printed_like

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}:\d{2} [A-Z0-9+-]+"

# What is asked → format of date(1), and the form that its output must have.
_FORMATS = {
    "date": ("%Y-%m-%d", rf"^{_DATE}\s*$"),
    "time": ("%H:%M:%S %Z", rf"^{_TIME}\s*$"),
    "date and time": ("%Y-%m-%d %H:%M:%S %Z", rf"^{_DATE} {_TIME}\s*$"),
    "weekday": ("%A", r"^(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\s*$"),
    "year": ("%Y", r"^\d{4}\s*$"),
}

_SYNONYMS = {
    "time and date": "date and time",
    "datetime": "date and time",
    "timestamp": "date and time",
    "day": "weekday",
    "day of the week": "weekday",
}

_WHAT = (
    r"(?P<what>date and (?:the )?time|time and (?:the )?date|date|time|datetime|timestamp|day of the week|weekday|year)"
)
_NOW = r"(?: is it)?(?: (?:now|today|right now|is it now|is it today|is today))?"


def _read(match: re.Match[str]) -> list[Step]:
    asked = re.sub(r"\s+(?:the\s+(?=time|date))?", " ", match["what"].lower())
    what = _SYNONYMS.get(asked, asked)
    form, pattern = _FORMATS[what]
    argv = ["date", f"+{form}"]
    if "path" not in match.re.groupindex:
        return [
            command("clock", f"Read the {what} from the clock", argv),
            check("verify", f"Check that it has the form of a {what}", printed_like("clock", pattern), after=["clock"]),
        ]
    path = workspace_path(match["path"])
    folder = make_folder(path)
    return [
        *folder,
        command("clock", f"Write the {what} to {path}", argv, into=path, after=ids(folder)),
        command("show", f"Read {path} back", ["cat", path], after=["clock"]),
        check(
            "verify",
            f"Check that {path} holds a {what}",
            RegexCriterion(pattern=pattern, path=path),
            printed_like("show", pattern),
            after=["show"],
        ),
    ]


RECIPES = (
    Recipe(
        example="What is the date?",
        pattern=phrase(
            r"(?:(?:echo|print|show|tell|display|get|output|give|say|report|check)(?: me)?(?: what)?"
            r"|what(?: is|'s|’s)?)"
            rf" (?:(?:the|today's|today’s) )?(?:current )?(?:system )?{_WHAT}{_NOW}"
        ),
        build=_read,
    ),
    Recipe(
        example="What day is it today?",
        pattern=phrase(r"(?:tell me )?what (?P<what>day)(?: of the week)? (?:is it|is today|it is)(?: now| today)?"),
        build=_read,
    ),
    Recipe(
        example="Write the current date to date.txt",
        pattern=phrase(
            rf"(?:write|save|put|store|echo|print) (?:(?:the|today's|today’s) )?(?:current )?{_WHAT} {INTO}{VERIFY}"
        ),
        build=_read,
    ),
)
