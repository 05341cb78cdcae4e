"""Write a file with a given text: `Write "hello" to notes/greeting.txt and verify it`."""

import re

from octollm.events.carrier import Step
from octollm.planner.recipes.grammar import INTO, PATH, VERIFY, literal, phrase, workspace_path
from octollm.planner.recipes.recipe import Recipe, check, command, holds, write

_TEXT = r"(?P<text>\"[^\"]*\"|'[^']*'|`[^`]*`|“[^”]*”|‘[^’]*’|[^\s\"'`“‘].*?)"
_MARK = r"(?:(?:the )?(?:following )?(?:exact )?(?:text|words?|contents?|line|string|message|phrase):? )"


def _write(match: re.Match[str]) -> list[Step]:
    path = workspace_path(match["path"])
    text = literal(match["text"], marked=match["marked"] is not None)
    content = text if text.endswith("\n") or not text else f"{text}\n"
    return [
        write("write", f"Write {path}", path, content),
        command("show", f"Read {path} back", ["cat", path], after=["write"]),
        check("verify", f"Check what {path} holds", *holds(path, content), after=["show"]),
    ]


RECIPES = (
    Recipe(
        example='Create a file notes.txt with the text "hello"',
        pattern=phrase(
            r"(?:create|make|write|add)(?: me)? (?:(?:a|the) )?(?:new )?(?:text )?file (?:(?:called|named) )?"
            rf"(?P<path>{PATH}) (?:that )?(?:with|containing|contains|holding|and write|and put|saying|says)"
            rf" (?P<marked>{_MARK})?{_TEXT}(?: (?:in|into|to) (?:it|the file))?{VERIFY}"
        ),
        build=_write,
    ),
    Recipe(
        example='Write "hello" to greeting.txt and verify it',
        pattern=phrase(rf"(?:write|save|put|store|echo|print) (?P<marked>{_MARK})?{_TEXT} {INTO}{VERIFY}"),
        build=_write,
    ),
)
