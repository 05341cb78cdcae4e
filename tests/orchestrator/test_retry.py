"""The rules of another attempt, as a table, and the pause before it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from octollm.events.carrier import Effect, ErrorCode, Retry, RetryCause, Step
from octollm.orchestrator.retry import RULES, allows, pause
from tests.orchestrator.history import step

UNASKED = {
    ErrorCode.SANDBOX_UNAVAILABLE: {"pure", "idempotent", "side_effecting"},
    ErrorCode.ARM_UNAVAILABLE: {"pure", "idempotent"},
    ErrorCode.INTERNAL_ERROR: {"pure", "idempotent"},
}
ASKED = {
    ErrorCode.STEP_FAILED: {"pure", "idempotent"},
    ErrorCode.TIMEOUT: {"pure", "idempotent"},
    ErrorCode.OOM_KILLED: {"pure", "idempotent"},
}
EFFECTS = st.sampled_from(Effect)
RETRIES = st.builds(
    Retry,
    max_attempts=st.integers(1, 10),
    backoff_ms=st.just(UNSET) | st.integers(1, 60_000),
    on=st.just(UNSET) | st.lists(st.sampled_from(RetryCause), min_size=1, unique=True),
)


def of(effect: Effect, retry: Retry | None = None) -> Step:
    return structs.replace(step("a"), effect=effect, retry=UNSET if retry is None else retry)


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_lets_just_these_effects_run_again(code: ErrorCode) -> None:
    asking = Retry(max_attempts=2, on=list(RetryCause))
    assert {effect for effect in Effect if allows(of(effect), 1, code)} == UNASKED.get(code, set())
    assert {effect for effect in Effect if allows(of(effect, asking), 1, code)} == (UNASKED | ASKED).get(code, set())


def test_every_code_has_its_rule_and_what_may_be_asked_for_is_what_the_contract_offers() -> None:
    assert RULES.keys() == set(ErrorCode)
    assert {code.value for code, rule in RULES.items() if rule.asked} == set(RetryCause)


@pytest.mark.parametrize(
    ("retry", "attempts"),
    [
        (None, 3),
        (Retry(max_attempts=1), 1),
        (Retry(max_attempts=2), 2),
        (Retry(max_attempts=10, backoff_ms=1), 10),
    ],
)
def test_a_step_is_tried_so_often(retry: Retry | None, attempts: int) -> None:
    tried = of(Effect.pure, retry)
    assert [n for n in range(1, 12) if allows(tried, n, ErrorCode.ARM_UNAVAILABLE)] == [*range(1, attempts)]


def test_only_the_codes_that_are_asked_for_count() -> None:
    asking = of(Effect.idempotent, Retry(max_attempts=3, on=[RetryCause.TIMEOUT]))
    assert allows(asking, 1, ErrorCode.TIMEOUT)
    assert not allows(asking, 1, ErrorCode.STEP_FAILED)


@given(retry=RETRIES | st.none(), attempt=st.integers(1, 100), event_id=st.uuids().map(str))
def test_the_pause_lies_in_the_upper_half_of_an_exponential_backoff(
    retry: Retry | None, attempt: int, event_id: str
) -> None:
    first = 500 if retry is None or retry.backoff_ms is UNSET else retry.backoff_ms
    longest = timedelta(milliseconds=min(first * 2 ** (attempt - 1), 60_000))
    waited = pause(of(Effect.pure, retry), attempt, event_id)
    assert longest / 2 <= waited <= longest
    assert waited == pause(of(Effect.pure, retry), attempt, event_id)


def test_the_pauses_of_many_steps_are_spread() -> None:
    pauses = [pause(of(Effect.pure), 1, f"event {number}") for number in range(1000)]
    tenths = [(waited - timedelta(milliseconds=250)) // timedelta(milliseconds=25) for waited in pauses]
    assert all(60 < tenths.count(tenth) < 140 for tenth in range(10))
