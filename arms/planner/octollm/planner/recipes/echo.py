"""Echo a text: `Echo hello world`, `Say "good morning"`."""

import re

from octollm.events.carrier import Step
from octollm.planner.recipes.grammar import literal
from octollm.planner.recipes.recipe import Recipe, command, confirmed

# "Echo the quick brown fox" means these words; "Echo the contents of a.txt" does not.
_REFERS = re.compile(
    r"(?:the\s+)?(?:current|contents?|output|results?|numbers?|list|first|last|files?|names?|date|time|user|working"
    r"|environment|value|sum)\b",
    re.IGNORECASE,
)


def _echo(match: re.Match[str]) -> list[Step]:
    given = match["text"].strip()
    spoken = match["verb"].lower() in ("echo", "say") and not _REFERS.match(given)
    text = literal(given, marked=spoken or match["marked"] is not None)
    # echo takes a leading dash for an option.
    argv = ["printf", "%s\\n", text] if text.startswith("-") else ["echo", text]
    return confirmed(command("echo", "Echo the text", argv), text)


RECIPES = (
    Recipe(
        example="Echo hello world",
        pattern=re.compile(
            r"(?P<verb>echo|say|print|output|display)(?P<marked>\s+the\s+(?:text|words?|phrase|message|string)\b)?"
            r"\s*:?(?<=[\s:])(?P<text>.*\S)\s*",
            re.IGNORECASE | re.DOTALL,
        ),
        build=_echo,
    ),
)
