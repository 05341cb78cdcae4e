"""What holds for every plan, every order of results, every crash, and every late or foreign event."""

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType, structs

from octollm.events.carrier import (
    Effect,
    ErrorCode,
    Retry,
    RetryCause,
    Step,
    StepDispatched,
    StepExecuted,
    StepFailed,
    TaskCancelRequested,
)
from octollm.events.envelope import TERMINAL, Event, event_id
from octollm.events.payload import Payload
from octollm.orchestrator.fold import evolve, fold
from octollm.orchestrator.saga import (
    FOLDED,
    CancelAsked,
    Intent,
    ResumeAsked,
    TimerFired,
    Trigger,
    decide,
    next_deadline,
)
from octollm.orchestrator.state import Ended, Executing, New, Open, Running, State
from tests.orchestrator.history import TASK, History, at, executed, failed, plan_failed, planned, received, step

CANCEL = CancelAsked("operator")
SECONDS = 60
"""The time budget."""
NOT_THE_STEPS = {"SANDBOX_UNAVAILABLE", "ARM_UNAVAILABLE", "INTERNAL_ERROR"}

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


RETRIES = st.builds(
    Retry,
    max_attempts=st.integers(1, 4),
    backoff_ms=st.just(UNSET) | st.integers(1, 60_000),
    on=st.just(UNSET) | st.lists(st.sampled_from(RetryCause), min_size=1, unique=True),
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Step, ...]:
    """A directed acyclic graph of up to six steps of any effect and retry, not always in topological order."""
    names = "abcdef"[: draw(st.integers(1, 6))]
    steps = [
        structs.replace(
            step(name, *(draw(st.sets(st.sampled_from(names[:place]))) if place else ()), wall_ms=1000 * (place + 1)),
            effect=draw(st.sampled_from(Effect)),
            retry=draw(st.just(UNSET) | RETRIES),
        )
        for place, name in enumerate(names)
    ]
    return tuple(draw(st.permutations(steps)))


# What happens next: an occasion (a code: a step failed so), which of the running steps it is about, of which attempt as
# seen from the running one, how many of the decisions are stored before a crash, seconds.
CODES = ("SANDBOX_UNAVAILABLE", "ARM_UNAVAILABLE", "INTERNAL_ERROR", *RetryCause, "UNKNOWN_OUTCOME", "CANCELLED")
OCCASIONS = ("executed", "executed", "cancel", "timer", "redelivered", "planned", "plan_failed", "foreign", "resume")
Happening = tuple[str, int, int, int, float]
HAPPENINGS: st.SearchStrategy[list[Happening]] = st.lists(
    st.tuples(
        st.just("due") | st.sampled_from(CODES) | st.sampled_from(OCCASIONS),
        st.integers(0, 5),
        st.sampled_from((0, 0, 0, 0, -1, 1)),
        st.sampled_from((8, 8, 8, 2, 1, 0)),
        st.sampled_from((0, 0.1, 0.4, 2, 10)),
    ),
    max_size=40,
)
BUDGETS = st.integers(0, 4)


def play(plan: tuple[Step, ...], happenings: list[Happening], retries: int) -> History:
    """A task's log after these happenings, with an orchestrator that may crash after any append.

    Results and plans are stored whenever they come, even where a well-behaved arm would not have appended them.
    """
    history = History()
    state = fold([history.add(received(seconds=SECONDS, retries=retries), 0), history.add(planned(*plan), 0)])
    clock = 0.0
    for occasion, which, offset, stored, seconds in [("redelivered", 0, 0, 8, 0.0), *happenings]:
        clock += seconds
        trigger: Trigger = FOLDED
        if occasion == "cancel":
            trigger = CANCEL
        elif occasion == "due" and (due := next_deadline(state)):
            clock = max(clock, (due - at(0)).total_seconds())
            trigger = TimerFired(at(clock))
        elif occasion == "timer":
            trigger = TimerFired(at(clock))
        elif occasion == "resume":
            trigger = ResumeAsked("operator", state.position.version)
        elif occasion not in ("redelivered", "due"):
            name, attempt = _running(state, which)
            state = evolve(state, history.add(_appended(occasion, name, max(1, attempt + offset), plan), clock))
        for _ in range(stored):
            if not (intents := decide(state, trigger)):
                break
            state = evolve(state, history.add(intents[0], clock, source="orchestrator"))
    return history


def _running(state: State, which: int) -> tuple[str, int]:
    """A running step and its attempt; one that no plan has where none runs."""
    if isinstance(state, Executing):
        running = [place for place, progress in enumerate(state.steps) if isinstance(progress, Running)]
        if running:
            place = running[which % len(running)]
            progress = state.steps[place]
            assert isinstance(progress, Running)
            return state.plan.steps[place].id, progress.attempt
    return "z", 1


def _appended(occasion: str, name: str, attempt: int, plan: tuple[Step, ...]) -> Payload:
    match occasion:
        case "executed":
            return executed(name, name, attempt=attempt)
        case "planned":
            return planned(*plan)
        case "plan_failed":
            return plan_failed()
        case "foreign":
            return received()
        case code:
            return failed(name, ErrorCode(code), attempt=attempt)


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, retries=BUDGETS)
def test_one_terminal_event_and_no_step_too_early_or_beside_itself(
    plan: tuple[Step, ...], happenings: list[Happening], retries: int
) -> None:
    history = play(plan, happenings, retries)
    ours = [event for event in history.events if event.source == "/octollm/orchestrator"]
    endings = [event for event in ours if event.kind in TERMINAL]
    assert len(endings) <= 1
    assert all(event.version <= endings[0].version for event in ours if endings)
    attempts: dict[str, int] = {}
    running: set[str] = set()
    done: set[str] = set()
    for event in history.events:
        match event.payload:
            case StepDispatched(step=dispatched, attempt=attempt):
                name = dispatched.id
                assert name not in running | done
                assert done.issuperset(dispatched.depends_on)
                assert attempt == attempts.get(name, 0) + 1
                attempts[name] = attempt
                running.add(name)
            case StepExecuted(step_id=name, attempt=attempt) if name in running and attempts[name] == attempt:
                running.remove(name)
                done.add(name)
            case StepFailed(step_id=name, attempt=attempt) if name in running and attempts[name] == attempt:
                running.remove(name)


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, retries=BUDGETS)
def test_another_attempt_is_bounded_allowed_and_paused_for(
    plan: tuple[Step, ...], happenings: list[Happening], retries: int
) -> None:
    history = play(plan, happenings, retries)
    again = 0
    latest: dict[str, Event] = {}
    failures: dict[tuple[str, int], Event] = {}
    is_cancelled = False
    for event in history.events:
        match event.payload:
            case TaskCancelRequested():
                is_cancelled = True
            case StepFailed(step_id=name, attempt=attempt) if name in latest:
                if latest[name].data["attempt"] == attempt:
                    failures.setdefault((name, attempt), event)
            case StepDispatched(step=dispatched, attempt=attempt):
                latest[dispatched.id] = event
                if attempt == 1:
                    continue
                again += 1
                failure = failures[dispatched.id, attempt - 1]
                code = failure.data["code"]
                policy = Retry(max_attempts=3) if dispatched.retry is UNSET else dispatched.retry
                first = 500 if policy.backoff_ms is UNSET else policy.backoff_ms
                longest = timedelta(milliseconds=min(first * 2 ** (attempt - 2), 60_000))
                assert attempt <= policy.max_attempts
                assert dispatched.effect != Effect.side_effecting or code == "SANDBOX_UNAVAILABLE"
                assert code in NOT_THE_STEPS or (policy.on is not UNSET and code in policy.on)
                assert event.causation_id == failure.id
                assert event.stored_at >= failure.stored_at + longest / 2
                assert datetime.fromisoformat(event.data["deadline"]) <= at(SECONDS)
                assert not is_cancelled
    assert again <= retries


@PATIENT
@given(
    effect=st.sampled_from(Effect),
    retry=st.just(UNSET) | RETRIES,
    codes=st.lists(st.sampled_from(CODES), min_size=5, max_size=5),
    retries=BUDGETS,
)
def test_a_step_that_keeps_failing_is_tried_just_as_often_as_it_may(
    effect: Effect, retry: Retry | UnsetType, codes: list[str], retries: int
) -> None:
    policy = Retry(max_attempts=3) if retry is UNSET else retry
    may = [
        code == "SANDBOX_UNAVAILABLE"
        or (
            effect != Effect.side_effecting
            and (code in NOT_THE_STEPS or (policy.on is not UNSET and code in policy.on))
        )
        for code in codes
    ]
    allowed = 1 + min((may.index(False) if False in may else len(may)), retries, policy.max_attempts - 1)
    history = History()
    history.add(received(seconds=3600, retries=retries))
    history.add(planned(structs.replace(step("a"), effect=effect, retry=retry)))
    tried = 0
    while not isinstance(state := fold(history.events), Ended):
        assert isinstance(state, Open)
        due = next_deadline(state)
        assert due is not None
        if intents := decide(state, FOLDED) or decide(state, TimerFired(due)):
            tried += intents[0].kind == "step.dispatched"
            history.add(intents[0], (max(due, state.at) - at(0)).total_seconds() if tried > 1 else None)
        if intents and intents[0].kind == "step.dispatched":
            history.add(failed("a", ErrorCode(codes[tried - 1]), attempt=tried))
    assert tried == allowed
    assert history.events[-1].data["code"] == codes[tried - 1]


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, retries=BUDGETS)
def test_a_terminal_event_is_the_end_of_all_change(
    plan: tuple[Step, ...], happenings: list[Happening], retries: int
) -> None:
    state = fold([])
    for event in play(plan, happenings, retries).events:
        after = evolve(state, event)
        assert after.position == event.position
        if isinstance(state, Ended):
            assert after == replace(state, position=event.position)
            assert decide(after, CANCEL) == ()
        state = after


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, retries=BUDGETS, cut=st.integers(0, 200))
def test_deciding_again_after_any_prefix_decides_the_same(
    plan: tuple[Step, ...], happenings: list[Happening], retries: int, cut: int
) -> None:
    prefix = play(plan, happenings, retries).events[:cut]
    state = fold(prefix)
    assert state == fold(prefix)
    for trigger in (FOLDED, TimerFired(at(30)), CANCEL, ResumeAsked("operator", state.position.version)):
        intents = decide(state, trigger)
        assert intents == decide(fold(prefix), trigger)
        assert len({_id(intent) for intent in intents}) == len(intents)
        if intents:
            # What is left after the first is stored is the rest: an interrupted decision goes on where it stopped.
            history = History()
            history.events = list(prefix)
            assert isinstance(state, Open)
            now = max(state.at, trigger.at) if isinstance(trigger, TimerFired) else state.at
            history.add(intents[0], (now - at(0)).total_seconds())
            rest = decide(fold(history.events), trigger)
            if len(intents) > 1:
                assert rest == intents[1:]


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, retries=BUDGETS)
def test_every_task_ends_by_its_timers_alone(plan: tuple[Step, ...], happenings: list[Happening], retries: int) -> None:
    history = play(plan, happenings, retries)
    state = fold(history.events)
    for _ in range(50):
        due = next_deadline(state)
        assert (due is not None) == isinstance(state, Open), "what is open has a deadline"
        if due is None:
            break
        trigger: Trigger = TimerFired(due)
        intents = decide(state, FOLDED) or decide(state, trigger)
        assert intents, "a deadline at which nothing is decided would be set again and again"
        while intents:
            assert isinstance(state, Open)
            state = evolve(state, history.add(intents[0], (max(due, state.at) - at(0)).total_seconds()))
            intents = decide(state, trigger)
    assert isinstance(state, Ended | New)
    ran = [event for event in history.events if event.kind == "step.dispatched"]
    assert len(ran) <= len(plan) + retries


@PATIENT
@given(plan=plans())
def test_results_in_any_order_complete_the_plan_in_the_least_number_of_events(plan: tuple[Step, ...]) -> None:
    history = History()
    history.add(received())
    history.add(planned(*plan))
    while not isinstance(state := fold(history.events), Ended):
        while intents := decide(fold(history.events), FOLDED):
            history.add(intents[0])
        state = fold(history.events)
        if isinstance(state, Executing):
            places = [place for place, progress in enumerate(state.steps) if isinstance(progress, Running)]
            history.add(executed(plan[places[-1]].id, "out"))
    assert state.outcome == "completed"
    assert len(history.events) == 3 + 2 * len(plan)


def _id(intent: Intent) -> str:
    return event_id(TASK, intent.causation_id, intent.kind, intent.key)
