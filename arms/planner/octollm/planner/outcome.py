"""What planning ends in: a plan or a reasoned failure, as the event that goes on record."""

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import UNSET

from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, Step, TaskPlanned, TokenUsage
from octollm.planner.validation import InvalidPlan

Outcome: TypeAlias = TaskPlanned | PlanFailed

PLAN_VERSION = 1
"""A task is planned once: there is one version."""

NO_TOKENS = TokenUsage(input_tokens=0, output_tokens=0)

_MESSAGE_LENGTH = 2000


def certain_plan(provider: str, steps: Sequence[Step]) -> TaskPlanned:
    """A plan that no model made: free of charge and not a matter of confidence."""
    return TaskPlanned(
        plan_version=PLAN_VERSION,
        steps=list(steps),
        provider=provider,
        usage=NO_TOKENS,
        cost_micro_usd=0,
        confidence=1000,
        repairs=0,
    )


def failed_plan(
    provider: str,
    code: ErrorCode,
    class_: PlanFailureClass,
    message: str,
    *,
    retryable: bool = False,
    model: str | None = None,
    usage: TokenUsage = NO_TOKENS,
    cost_micro_usd: int = 0,
) -> PlanFailed:
    """A failure; a message that is too long for the event is cut."""
    return PlanFailed(
        plan_version=PLAN_VERSION,
        code=code,
        class_=class_,
        message=message if len(message) <= _MESSAGE_LENGTH else message[: _MESSAGE_LENGTH - 1] + "…",
        retryable=retryable,
        provider=provider,
        usage=usage,
        cost_micro_usd=cost_micro_usd,
        model=UNSET if model is None else model,
    )


def invalid_request(provider: str, error: InvalidPlan) -> PlanFailed:
    """The caller asks for what no valid plan can be: a broken plan of its own, or a criterion that can't be met."""
    return failed_plan(
        provider,
        ErrorCode.INVALID_REQUEST,
        PlanFailureClass.invalid_plan,
        f"{error}. Correct this and submit a new task.",
    )
