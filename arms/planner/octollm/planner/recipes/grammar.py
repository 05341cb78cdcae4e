"""The words that goals of all families share."""

import re

from octollm.planner.recipes.recipe import Unsupported

_POLITE = re.compile(
    r"(?:(?:please|kindly|hi|hello|hey)\s*,?\s+)*(?:(?:can|could|would|will)\s+you\s+)?(?:please\s+)?"
    r"(?:(?:i\s+(?:want|need|would\s+like)|i'd\s+like)\s+(?:you\s+)?to\s+)?",
    re.IGNORECASE,
)

_QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)'|`([^`]*)`|“([^”]*)”|‘([^’]*)’)\s*[.!?]*""")

PATH = r"""(?:"[\w./-]+"|'[\w./-]+'|`[\w./-]+`|[\w./-]*\w)"""

INTO = rf"(?:to|into|in) (?:(?:a|the) )?(?:new )?(?:text )?(?:file )?(?:(?:called|named) )?(?P<path>{PATH})"

_SEEN = (
    r"it|its|that|this|them|the|file|files|contents?|result|results|output|text|numbers?|value|list|back|exists?"
    r"|was|is|are|were|has|have|been|written|created|saved|correct|correctly|right|there"
)

VERIFY = (
    r"(?:[,;.]? (?:(?:and then|and|then) )?(?:verify|check|confirm|validate|read|show|print|display|cat)"
    rf"(?: (?:{_SEEN})\b)*)*"
)
"""What a plan does anyway: look at the result and check it."""

# fmt: off
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on
NUMBER = rf"(?:\d+|(?:{'|'.join(_NUMBERS)})\b)"

_OPENING = tuple("\"'`“‘")

_ASKS = re.compile(
    r"\b(?:the|an?|some|my|your|all|every|each|first|last|next|current|numbers?|lines?|words?|characters?|files?|names?"
    r"|contents?|lists?|directory|directories|folders?|sum|total|average|count|date|time|random|script|code|program"
    r"|function|class|tests?|poem|haiku|story|essay|report|summary|documentation|readme|letter|e-?mail|table|json|csv"
    r"|html|python|bash|of|from|which|whether|how|what|whose)\b",
    re.IGNORECASE,
)

_MORE = re.compile(
    r"(?:\b(?:and|then)|;)\s+(?:then\s+)?(?:verify|check|confirm|count|save|write|list|print|show|delete|remove|create"
    r"|copy|move|rename|read|sort|append|compute|calculate|tell|send|make|find|search|run)\b",
    re.IGNORECASE,
)


def normalise(goal: str) -> str:
    """The goal without white space around it and without politeness before it."""
    text = goal.strip()
    polite = _POLITE.match(text)
    return text[polite.end() :] if polite else text


def phrase(pattern: str) -> re.Pattern[str]:
    """A pattern for a whole goal: case ignored, any white space where it has a blank, punctuation at the end."""
    spaced = pattern.replace(" ", r"\s+")
    return re.compile(rf"{spaced}\s*[.!?]*", re.IGNORECASE | re.DOTALL)


def literal(text: str, *, marked: bool = False) -> str:
    """The text that is meant, quotes removed.

    Raises Unsupported where unquoted words might ask for something rather than be the text. `marked`: the goal says
    that what follows is the text ("with the text …").
    """
    if quoted := _QUOTED.fullmatch(text):
        return next(group for group in quoted.groups() if group is not None)
    if text[:1] in _OPENING or _MORE.search(text) or (not marked and _ASKS.search(text)):
        raise Unsupported("it isn't clear which words are the text: put the text in quotes")
    return text


def number(text: str) -> int:
    """`12` or `twelve`. Raises Unsupported for more digits than any recipe works with."""
    if len(text) > 18:
        raise Unsupported("numbers have 18 digits at most")
    return int(text) if text.isdigit() else _NUMBERS.index(text.lower()) + 1


def workspace_path(text: str) -> str:
    """A path inside the workspace. Raises Unsupported for one that leads out of it."""
    path = text.strip("\"'`").removeprefix("./")
    if len(path) > 1024 or any(part in ("", ".", "..") for part in path.split("/")):
        raise Unsupported(f"{path[:80]!r} is not a path inside the workspace: no leading /, no . or .. component")
    return path
