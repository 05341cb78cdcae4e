"""What a recipe is, and the steps that recipes are made of."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import UNSET
from msgspec.structs import replace

from octollm.events.carrier import (
    Action,
    CheckAction,
    CommandAction,
    Effect,
    EqualsCriterion,
    ExitCodeCriterion,
    FileAction,
    FileExistsCriterion,
    MachineCriterion,
    Op,
    Redirect,
    RegexCriterion,
    Step,
)
from octollm.planner.drafts import DEFAULT_LIMITS, EXECUTOR

MAX_TEXT = 4000
"""Code points that can be verified: what an `equals` criterion holds."""


class Unsupported(ValueError):
    """A goal of this recipe's kind that it can't carry out; the message says why and what it could."""


_LONG_NUMBER = re.compile(r"\d[\d .-]{7,}\d")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Goals of one form. `example` is one of them; `build` makes the steps, or raises Unsupported."""

    example: str
    pattern: re.Pattern[str]
    build: Callable[[re.Match[str]], list[Step]]


def command(
    step: str,
    title: str,
    *pipeline: Sequence[str],
    after: Sequence[str] = (),
    stdin: str | None = None,
    into: str | None = None,
    exits: int = 0,
) -> Step:
    """A pipeline. `into` redirects its output to a file, replacing it; `exits` is the exit code that means success."""
    action = CommandAction(
        pipeline=[list(stage) for stage in pipeline],
        stdin=UNSET if stdin is None else stdin,
        redirect=UNSET if into is None else Redirect(path=into),
    )
    acceptance: list[MachineCriterion] = [ExitCodeCriterion(code=exits)] if exits else []
    return _step(step, title, action, after, Effect.pure if into is None else Effect.idempotent, acceptance)


def write(step: str, title: str, path: str, text: str, after: Sequence[str] = ()) -> Step:
    """Writes a file, replacing it."""
    return _step(step, title, FileAction(op=Op.write, path=path, text=text), after, Effect.idempotent)


def make_folder(path: str) -> list[Step]:
    """The step that makes the directory of the file `path`; none for a file at the top of the workspace.

    A redirection needs it; writing a file makes the directory by itself.
    """
    folder = path.rpartition("/")[0]
    if not folder:
        return []
    action = FileAction(op=Op.mkdir, path=folder)
    return [_step("folder", f"Make the directory {folder}", action, [], Effect.idempotent)]


def check(step: str, title: str, *criteria: MachineCriterion, after: Sequence[str]) -> Step:
    """Checks criteria."""
    return _step(step, title, CheckAction(criteria=list(criteria)), after, Effect.pure)


def confirmed(step: Step, text: str) -> list[Step]:
    """The step, and a check that it printed exactly `text`. Raises Unsupported for a text too long to verify.

    Outputs are screened before they are recorded, and a check reads the record. Long runs of digits might be taken for
    personal data there, so those are compared where they are printed: as the step's own acceptance.
    """
    if _LONG_NUMBER.search(text):
        return [replace(step, acceptance=[*step.acceptance, EqualsCriterion(text=verifiable(text))])]
    return [step, check("verify", "Check that exactly this was printed", printed(step.id, text), after=[step.id])]


def ids(steps: Sequence[Step]) -> list[str]:
    """What comes after all of `steps` depends on these."""
    return [step.id for step in steps]


def printed(step: str, text: str) -> EqualsCriterion:
    """The step printed exactly this. Raises Unsupported for a text too long to verify."""
    return EqualsCriterion(text=verifiable(text), step=step)


def printed_like(step: str, pattern: str) -> RegexCriterion:
    """The step printed something of this form (RE2)."""
    return RegexCriterion(pattern=pattern, step=step)


def holds(path: str, text: str) -> list[MachineCriterion]:
    """The file is there and holds exactly this. Raises Unsupported for a text too long to verify."""
    return [FileExistsCriterion(path=path), EqualsCriterion(text=verifiable(text), path=path)]


def verifiable(text: str) -> str:
    """The text without the newlines at its end, which `equals` leaves aside. Raises Unsupported if it is too long."""
    if len(text.rstrip("\n")) > MAX_TEXT:
        raise Unsupported(f"a result of {len(text)} characters can't be verified; {MAX_TEXT} at most")
    return text.rstrip("\n")


def _step(
    step: str,
    title: str,
    action: Action,
    after: Sequence[str],
    effect: Effect,
    acceptance: list[MachineCriterion] | None = None,
) -> Step:
    return Step(
        id=step,
        title=title[:200],
        arm=EXECUTOR,
        action=action,
        depends_on=list(after),
        acceptance=acceptance or [],
        effect=effect,
        limits=DEFAULT_LIMITS,
    )
