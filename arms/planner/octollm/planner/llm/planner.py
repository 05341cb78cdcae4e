"""Plans made by a model: ask, validate, feed what is wrong back, within time and budget."""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

import msgspec
import structlog
from msgspec import UNSET

from octollm.events import failpoint, schema
from octollm.events.carrier import (
    CheckAction,
    ErrorCode,
    ExitCodeCriterion,
    PlanFailureClass,
    Step,
    TaskPlanned,
    TaskReceived,
    TokenUsage,
)
from octollm.planner import metrics
from octollm.planner.acceptance import complete
from octollm.planner.llm import prompt, wire
from octollm.planner.llm.budget import BudgetExceeded, Ledger, estimate
from octollm.planner.llm.pricing import cost_micro_usd, price_of
from octollm.planner.llm.provider import Answer, Finish, Message, ModelError, Provider
from octollm.planner.outcome import PLAN_VERSION, Outcome, failed_plan
from octollm.planner.programs import PROGRAMS
from octollm.planner.screening import Screen, ScreenUnavailable
from octollm.planner.validation import InvalidPlan, Violation

MAX_REPAIRS = 2
MAX_ATTEMPTS = 3
"""Of one call that fails for a reason that may pass."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_KEPT = 256

_CODES = {
    PlanFailureClass.not_json: ErrorCode.PLANNING_FAILED,
    PlanFailureClass.invalid_plan: ErrorCode.PLANNING_FAILED,
    PlanFailureClass.refused: ErrorCode.PLANNING_FAILED,
    PlanFailureClass.truncated: ErrorCode.PLANNING_FAILED,
}
"""What the model itself did wrong; every other class means that it could not be asked."""

_NEXT = {
    PlanFailureClass.not_json: "try another model, or submit a plan",
    PlanFailureClass.invalid_plan: "reword the goal, try another model, or submit a plan",
    PlanFailureClass.refused: "reword the goal, or submit a plan",
    PlanFailureClass.truncated: "raise OCTO_PLANNER__MAX_OUTPUT_TOKENS or the task's budget, or split the goal",
    PlanFailureClass.rate_limited: "submit the task again later",
    PlanFailureClass.overloaded: "submit the task again later",
    PlanFailureClass.timeout: "submit the task again, or raise OCTO_PLANNER__CALL_SECONDS",
    PlanFailureClass.unavailable: "check the provider's state and settings, then submit the task again",
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one call (seconds, output tokens), and of the planning of one task with all its calls (seconds)."""

    call_seconds: float
    plan_seconds: float
    max_output_tokens: int


@dataclass(slots=True)
class _Talk:
    """The conversation about one task."""

    messages: list[Message]
    ledger: Ledger
    deadline: float
    digest: str
    model: str
    repairs: int = 0
    faults: Sequence[Violation] = field(default=())


class ModelPlanner:
    """Plans by one provider. Whatever comes out has been screened."""

    def __init__(self, provider: Provider, screen: Screen, limits: Limits) -> None:
        self._provider = provider
        self._screen = screen
        self._limits = limits
        # What was paid for and couldn't be screened yet, by task: a redelivery must not buy it again.
        self._unscreened: OrderedDict[str, Outcome] = OrderedDict()

    async def plan(self, task_id: str, task: TaskReceived, received_at: datetime) -> Outcome:
        """The model's plan, or why there is none.

        Raises ScreenUnavailable; the next call for this task then resumes at the screen and buys nothing.
        """
        outcome = self._unscreened.pop(task_id, None) or await self._ask(task, received_at)
        failpoint.reach("planner.answered")
        try:
            return await self._screen.clean(outcome)
        except ScreenUnavailable:
            self._unscreened[task_id] = outcome
            if len(self._unscreened) > _KEPT:
                self._unscreened.popitem(last=False)
            raise

    async def _ask(self, task: TaskReceived, received_at: datetime) -> Outcome:
        left = task.budget.max_time_seconds - (datetime.now(UTC) - received_at).total_seconds()
        messages = prompt.conversation(task)
        talk = _Talk(
            messages=messages,
            ledger=Ledger(task.budget, price_of(self._provider.model)),
            deadline=monotonic() + min(left, self._limits.plan_seconds),
            digest=prompt.digest(messages),
            model=self._provider.model,
        )
        try:
            return await self._converse(task, talk)
        except ModelError as error:
            code = _CODES.get(error.class_, ErrorCode.LLM_UNAVAILABLE)
            advice = f"; {_NEXT[error.class_]}" if error.class_ in _NEXT else ""
            return self._failed(talk, code, error.class_, f"{error}{advice}.", retryable=error.transient)
        except BudgetExceeded as error:
            message = f"Planning stopped: {error}. Raise the budget and submit the task again."
            return self._failed(talk, ErrorCode.BUDGET_EXCEEDED, PlanFailureClass.quota, message)

    async def _converse(self, task: TaskReceived, talk: _Talk) -> TaskPlanned:
        limit = self._limits.max_output_tokens
        while True:
            answer = await self._call(talk, limit)
            if answer.finish is Finish.refused:
                self._count(PlanFailureClass.refused)
                raise ModelError(PlanFailureClass.refused, "the model declined to plan this")
            if answer.finish is Finish.truncated:
                self._count(PlanFailureClass.truncated)
                if limit > self._limits.max_output_tokens:
                    raise ModelError(PlanFailureClass.truncated, "the model's answer was cut off, twice")
                limit *= 2
                continue
            try:
                return self._planned(task, talk, answer)
            except wire.NotJson as error:
                class_, talk.faults = PlanFailureClass.not_json, [Violation("the answer", "json", str(error))]
            except InvalidPlan as error:
                class_, talk.faults = PlanFailureClass.invalid_plan, error.violations
            self._count(class_)
            if talk.repairs == MAX_REPAIRS:
                found = "; ".join(map(str, talk.faults))
                raise ModelError(class_, f"after {MAX_REPAIRS} repairs the model's plan is still unusable: {found}")
            talk.repairs += 1
            metrics.LLM_REPAIRS.labels(self._provider.name).inc()
            talk.messages += [Message("assistant", answer.text), prompt.repair(talk.faults)]

    def _planned(self, task: TaskReceived, talk: _Talk, answer: Answer) -> TaskPlanned:
        """The answer as a plan on record. Raises NotJson or InvalidPlan."""
        steps, confidence = wire.decode(answer.text)
        faults = _size_and_substance(steps)
        if faults:
            raise InvalidPlan(faults)
        price = talk.ledger.price
        planned = TaskPlanned(
            plan_version=PLAN_VERSION,
            steps=complete(steps, task.acceptance_criteria, PROGRAMS),
            provider=self._provider.name,
            usage=talk.ledger.usage,
            cost_micro_usd=talk.ledger.cost_micro_usd,
            confidence=confidence * 10,
            repairs=talk.repairs,
            model=answer.model,
            prompt_digest=talk.digest,
            price=UNSET if price is None else price,
        )
        try:
            schema.validate("task.planned", msgspec.to_builtins(planned))
        except schema.SchemaViolation as error:
            raise InvalidPlan([Violation("the plan", "schema", f"{at}: {why}") for at, why in error.errors]) from error
        return planned

    async def _call(self, talk: _Talk, wanted: int) -> Answer:
        """One answer, booked in the ledger; tries again what may pass. Raises ModelError, BudgetExceeded."""
        tokens = sum(estimate(message.content) for message in talk.messages)
        allowed = talk.ledger.reserve(tokens, wanted)
        attempt = 1
        while True:
            left = talk.deadline - monotonic()
            if left <= 0:
                raise ModelError(PlanFailureClass.timeout, "the time for planning is over", transient=True)
            try:
                with metrics.LLM_CALLS.labels(self._provider.name).time():
                    answer = await self._provider.complete(
                        talk.messages, wire.SCHEMA, allowed, min(left, self._limits.call_seconds)
                    )
            except ModelError as error:
                self._count(error.class_)
                pause = _pause(attempt, error.retry_after_s)
                if not error.transient or attempt == MAX_ATTEMPTS or pause >= talk.deadline - monotonic():
                    raise
                _log.info("the model will be asked again", reason=str(error), attempt=attempt, pause_s=round(pause, 2))
                attempt += 1
                await asyncio.sleep(pause)
                continue
            self._book(talk, answer, tokens)
            return answer

    def _book(self, talk: _Talk, answer: Answer, prompt_tokens: int) -> None:
        # A server that reports no usage is booked by estimate: the budget must hold for it too.
        usage = answer.usage or TokenUsage(input_tokens=prompt_tokens, output_tokens=estimate(answer.text))
        name = self._provider.name
        metrics.LLM_TOKENS.labels(name, "input").inc(usage.input_tokens)
        metrics.LLM_TOKENS.labels(name, "output").inc(usage.output_tokens)
        metrics.LLM_COST.labels(name).inc(cost_micro_usd(usage, talk.ledger.price))
        talk.model = answer.model
        talk.ledger.settle(usage)

    def _count(self, class_: PlanFailureClass) -> None:
        metrics.LLM_ERRORS.labels(self._provider.name, class_.value).inc()

    def _failed(
        self, talk: _Talk, code: ErrorCode, class_: PlanFailureClass, message: str, *, retryable: bool = False
    ) -> Outcome:
        return failed_plan(
            self._provider.name,
            code,
            class_,
            message,
            retryable=retryable,
            model=talk.model,
            usage=talk.ledger.usage,
            cost_micro_usd=talk.ledger.cost_micro_usd,
        )


def _size_and_substance(steps: Sequence[Step]) -> list[Violation]:
    """A model's plan has a bounded number of steps, and checks more than that programs ran."""
    if not prompt.LEAST_STEPS <= len(steps) <= prompt.MOST_STEPS:
        wanted = f"{prompt.LEAST_STEPS} to {prompt.MOST_STEPS} steps"
        return [Violation("the plan", "size", f"has {len(steps)} steps; {wanted}, verification included")]
    criteria = [criterion for step in steps for criterion in step.acceptance]
    criteria += [
        criterion for step in steps if isinstance(step.action, CheckAction) for criterion in step.action.criteria
    ]
    if all(isinstance(criterion, ExitCodeCriterion) for criterion in criteria):
        return [Violation("the plan", "verified", "checks nothing but exit codes; add a check of the result")]
    return []


def _pause(attempt: int, retry_after_s: float | None) -> float:
    """Seconds before the next attempt: what the provider asks for, else doubling from half a second, jittered."""
    jitter = random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
    if retry_after_s is not None:
        return retry_after_s + jitter * 0.1
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (attempt - 1)) * jitter
