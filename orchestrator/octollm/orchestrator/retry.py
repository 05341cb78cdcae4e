"""When a failed step is tried again: the rules as data, and the times that follow from them. Pure.

A failed attempt is followed by another one where its error and the step's effect allow it (RULES), where the step's
`retry` and the task's `budget.max_retries` leave one, and where it would begin before the task's deadline.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from msgspec import UNSET

from octollm.events.carrier import Effect, ErrorCode, Retry, Step
from octollm.orchestrator.fold import up_to_ms
from octollm.orchestrator.state import Executing, Failed

DEFAULT = Retry(max_attempts=3)
"""For a step without `retry`."""

BACKOFF_MS = 500
"""Longest pause before a second attempt, where the step says nothing of it."""

LONGEST_BACKOFF_MS = 60_000
"""However many attempts there have been."""

ANY = frozenset(Effect)
REPEATABLE = frozenset({Effect.pure, Effect.idempotent})
NONE: frozenset[Effect] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """What an error code says about another attempt.

    unasked: effects whose steps run again without a word. asked: those that do where the step's `retry.on` names the
    code. why: why these and no others.
    """

    unasked: frozenset[Effect]
    asked: frozenset[Effect]
    why: str


def _unasked(effects: frozenset[Effect], why: str) -> Rule:
    return Rule(effects, NONE, why)


def _asked(why: str) -> Rule:
    return Rule(NONE, REPEATABLE, why)


def _never(why: str) -> Rule:
    return Rule(NONE, NONE, why)


_NO_RESULT = "no failure of a step that ran: the same request gets the same answer"

RULES: Mapping[ErrorCode, Rule] = {
    ErrorCode.SANDBOX_UNAVAILABLE: _unasked(ANY, "the sandbox could not be set up, so nothing has run"),
    ErrorCode.ARM_UNAVAILABLE: _unasked(REPEATABLE, "the arm fell silent: the step may have run, and may run still"),
    ErrorCode.INTERNAL_ERROR: _unasked(REPEATABLE, "a fault of ours, not of the step, which may have run"),
    ErrorCode.STEP_FAILED: _asked("most programs fail again as they failed before; the step may know better"),
    ErrorCode.TIMEOUT: _asked("another attempt costs the whole wall clock again, mostly for the same end"),
    ErrorCode.OOM_KILLED: _asked("the same work mostly needs the same memory"),
    ErrorCode.PIDS_LIMIT: _never("the same work needs the same processes"),
    ErrorCode.DISK_LIMIT: _never("the same work needs the same space"),
    ErrorCode.OUTPUT_LIMIT: _never("the same work writes the same output"),
    ErrorCode.SANDBOX_VIOLATION: _never("what tried to break out gets no second try"),
    ErrorCode.CAPABILITY_VIOLATION: _never("what went beyond its grant gets no second try"),
    ErrorCode.POLICY_DENIED: _never("the policy's answer does not change by asking again"),
    ErrorCode.REPLAYED: _never("the attempt was dispatched before: its result is that of the first dispatch"),
    ErrorCode.UNKNOWN_OUTCOME: _never("its effect may have taken place; only a person can find out"),
    ErrorCode.CANCELLED: _never("a person wanted it stopped"),
    ErrorCode.BUDGET_EXCEEDED: _never("what is used up stays used up"),
    ErrorCode.INVALID_REQUEST: _never(_NO_RESULT),
    ErrorCode.NOT_FOUND: _never(_NO_RESULT),
    ErrorCode.CONFLICT: _never(_NO_RESULT),
    ErrorCode.UNAUTHORIZED: _never(_NO_RESULT),
    ErrorCode.FORBIDDEN: _never(_NO_RESULT),
    ErrorCode.RATE_LIMITED: _never(_NO_RESULT),
    ErrorCode.PAYLOAD_TOO_LARGE: _never(_NO_RESULT),
    ErrorCode.INJECTION_BLOCKED: _never(_NO_RESULT),
    ErrorCode.PLANNING_FAILED: _never(_NO_RESULT),
    ErrorCode.LLM_UNAVAILABLE: _never(_NO_RESULT),
}
"""Every error code. A side-effecting step runs again only after an attempt that has certainly not begun."""


def schedule(state: Executing) -> dict[int, datetime]:
    """When each failed step that is tried again is due, by its place in the plan.

    A failed step without a time has failed for good. Where the budget doesn't suffice for all, those that failed first
    get what is left of it.
    """
    left = state.contract.max_retries - state.retries
    failed = [(place, step) for place, step in enumerate(state.steps) if isinstance(step, Failed)]
    due: dict[int, datetime] = {}
    for place, step in sorted(failed, key=lambda one: one[1].version):
        planned = state.plan.steps[place]
        if len(due) < left and allows(planned, step.attempt, step.code):
            at = up_to_ms(step.at + pause(planned, step.attempt, step.event_id))
            if at < state.contract.deadline:
                due[place] = at
    return due


def allows(step: Step, attempt: int, code: ErrorCode) -> bool:
    """Whether the step itself may be tried again after this attempt failed with this code."""
    policy, rule = _policy(step), RULES[code]
    asked = policy.on is not UNSET and code.value in policy.on
    return attempt < policy.max_attempts and (step.effect in rule.unasked or (asked and step.effect in rule.asked))


def pause(step: Step, attempt: int, event_id: str) -> timedelta:
    """How long to wait after this attempt failed: exponential, its second half jitter.

    The jitter follows from the id of the failure's event: the same for every orchestrator and every replay, another for
    every step, so that what failed together does not come back together.
    """
    policy = _policy(step)
    first = BACKOFF_MS if policy.backoff_ms is UNSET else policy.backoff_ms
    longest_us = 1000 * min(first * 2 ** (attempt - 1), LONGEST_BACKOFF_MS)
    drawn = int.from_bytes(sha256(event_id.encode()).digest()[:8], "big")
    return timedelta(microseconds=longest_us // 2 + (longest_us // 2 * drawn >> 64))


def _policy(step: Step) -> Retry:
    return DEFAULT if step.retry is UNSET else step.retry
