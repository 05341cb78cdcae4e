"""What a task came to: its result, what it spent, and its criteria in words. Pure."""

from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec import UNSET, UnsetType

from octollm.events.carrier import (
    ContainsCriterion,
    Criterion,
    CriterionResult,
    EqualsCriterion,
    ExitCodeCriterion,
    FileExistsCriterion,
    How,
    JsonPathCriterion,
    RegexCriterion,
    Result,
    Spent,
)
from octollm.orchestrator.state import CUT, Executed, Executing, Open

LONGEST_CRITERION = 500
"""Characters of a criterion in words: as many as prose may have."""

LARGEST_OUTPUT = 200_000
"""Bytes of the output as JSON: with ten criteria it fits into a message, so that a task can always be completed."""

KEPT = 16_000
"""Characters kept of each end of a larger output: never above LARGEST_OUTPUT, however they are escaped."""


def spent(state: Open, now: datetime) -> Spent:
    """What the task has used until `now`, the broker's time of what decided it."""
    steps = state.steps if isinstance(state, Executing) else ()
    return Spent(
        steps_executed=sum(isinstance(step, Executed) for step in steps),
        total_duration_ms=max(now - state.contract.received_at, timedelta()) // timedelta(milliseconds=1),
        cost_micro_usd=state.ledger.cost_micro_usd,
        tokens=state.ledger.tokens,
    )


def result(state: Executing, now: datetime) -> Result:
    """The result of a task whose steps have all executed."""
    used = spent(state, now)
    return Result(
        output="" if state.answer is None else _fitting(state.answer.text),
        steps_executed=used.steps_executed,
        total_duration_ms=used.total_duration_ms,
        cost_micro_usd=used.cost_micro_usd,
        tokens=used.tokens,
        criteria=[
            _verdict(criterion, passed)
            for criterion, passed in zip(state.contract.criteria, state.verdicts, strict=True)
        ],
    )


def _verdict(criterion: Criterion, passed: bool | None) -> CriterionResult:
    if isinstance(criterion, str) or passed is None:
        return CriterionResult(text=in_words(criterion), passed=None, how=How.unjudged)
    return CriterionResult(text=in_words(criterion), passed=passed, how=How.machine)


def _fitting(output: str) -> str:
    if len(msgspec.json.encode(output)) <= LARGEST_OUTPUT:
        return output
    return f"{output[:KEPT]}{CUT}{output[-KEPT:]}"


def in_words(criterion: Criterion) -> str:
    """A criterion as people read it, 500 characters at most."""
    text = _words(criterion)
    return text if len(text) <= LONGEST_CRITERION else f"{text[: LONGEST_CRITERION - 1]}…"


def _words(criterion: Criterion) -> str:
    match criterion:
        case str():
            return criterion
        case ContainsCriterion(text=text, path=path, step=step):
            return f"{_target(path, step)}contains '{text}'"
        case EqualsCriterion(text=text, path=path, step=step):
            return f"{_target(path, step)}equals '{text}'"
        case RegexCriterion(pattern=pattern, path=path, step=step):
            return f"{_target(path, step)}matches /{pattern}/"
        case JsonPathCriterion(query=query, equals=equals, path=path, step=step):
            return f"{_target(path, step)}has {msgspec.json.encode(equals).decode()} at {query}"
        case ExitCodeCriterion(code=code):
            return f"exits with {code}"
        case FileExistsCriterion(path=path):
            return f"file {path} exists"
        case _:
            assert_never(criterion)


def _target(path: str | UnsetType, step: str | UnsetType) -> str:
    if path is not UNSET:
        return f"file {path} "
    if step is not UNSET:
        return f"output of step {step} "
    return ""
