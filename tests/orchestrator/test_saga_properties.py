"""What holds for every plan, every order of results, every crash, and every late or foreign event."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octollm.events.carrier import ErrorCode, Step, StepDispatched, StepExecuted
from octollm.events.envelope import TERMINAL, event_id
from octollm.events.payload import Payload
from octollm.orchestrator.fold import evolve, fold
from octollm.orchestrator.saga import FOLDED, CancelAsked, Intent, TimerFired, Trigger, decide, next_deadline
from octollm.orchestrator.state import Ended, Executing, New, Open, Running
from tests.orchestrator.history import TASK, History, at, executed, failed, plan_failed, planned, received, step

CANCEL = CancelAsked("operator")

# A busy machine is no failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def plans(draw: st.DrawFn) -> tuple[Step, ...]:
    """A directed acyclic graph of up to six steps, not always in topological order."""
    names = "abcdef"[: draw(st.integers(1, 6))]
    steps = [
        step(name, *(draw(st.sets(st.sampled_from(names[:place]))) if place else ()), wall_ms=1000 * (place + 1))
        for place, name in enumerate(names)
    ]
    return tuple(draw(st.permutations(steps)))


# What happens next: an occasion, the step it is about, how many of the decisions are stored before a crash, seconds.
OCCASIONS = ("executed", "failed", "killed", "cancel", "timer", "redelivered", "planned", "plan_failed", "foreign")
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(OCCASIONS), st.sampled_from("abcdefz"), st.integers(0, 8), st.floats(0, 20, allow_nan=False)
    ),
    max_size=40,
)


def play(plan: tuple[Step, ...], happenings: list[tuple[str, str, int, float]]) -> History:
    """A task's log after these happenings, with an orchestrator that may crash after any append.

    Results and plans are stored whenever they come, even where a well-behaved arm would not have appended them.
    """
    history = History()
    state = fold([history.add(received(seconds=60), 0), history.add(planned(*plan), 0)])
    clock = 0.0
    for occasion, name, stored, seconds in [("redelivered", "a", 8, 0.0), *happenings]:
        clock += seconds
        trigger: Trigger = FOLDED
        if occasion == "cancel":
            trigger = CANCEL
        elif occasion == "timer":
            trigger = TimerFired(at(clock))
        elif occasion != "redelivered":
            state = evolve(state, history.add(_appended(occasion, name, plan), clock))
        for _ in range(stored):
            if not (intents := decide(state, trigger)):
                break
            state = evolve(state, history.add(intents[0], clock, source="orchestrator"))
    return history


def _appended(occasion: str, name: str, plan: tuple[Step, ...]) -> Payload:
    match occasion:
        case "executed":
            return executed(name, name)
        case "failed":
            return failed(name)
        case "killed":
            return failed(name, ErrorCode.CANCELLED)
        case "planned":
            return planned(*plan)
        case "plan_failed":
            return plan_failed()
        case _:
            return received()


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS)
def test_one_terminal_event_and_no_step_twice_or_too_early(
    plan: tuple[Step, ...], happenings: list[tuple[str, str, int, float]]
) -> None:
    history = play(plan, happenings)
    ours = [event for event in history.events if event.source == "/octollm/orchestrator"]
    endings = [event for event in ours if event.kind in TERMINAL]
    assert len(endings) <= 1
    assert all(event.version <= endings[0].version for event in ours if endings)
    running: set[str] = set()
    done: set[str] = set()
    for event in history.events:
        match event.payload:
            case StepDispatched(step=dispatched):
                assert dispatched.id not in running
                assert done.issuperset(dispatched.depends_on)
                running.add(dispatched.id)
            case StepExecuted(step_id=name) if name in running:
                done.add(name)


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS)
def test_a_terminal_event_is_the_end_of_all_change(
    plan: tuple[Step, ...], happenings: list[tuple[str, str, int, float]]
) -> None:
    state = fold([])
    for event in play(plan, happenings).events:
        after = evolve(state, event)
        assert after.position == event.position
        if isinstance(state, Ended):
            assert after == replace(state, position=event.position)
            assert decide(after, CANCEL) == ()
        state = after


@PATIENT
@given(plan=plans(), happenings=HAPPENINGS, cut=st.integers(0, 200))
def test_deciding_again_after_any_prefix_decides_the_same(
    plan: tuple[Step, ...], happenings: list[tuple[str, str, int, float]], cut: int
) -> None:
    prefix = play(plan, happenings).events[:cut]
    state = fold(prefix)
    assert state == fold(prefix)
    for trigger in (FOLDED, TimerFired(at(30)), CANCEL):
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
@given(plan=plans(), happenings=HAPPENINGS)
def test_every_task_ends_by_its_timers_alone(
    plan: tuple[Step, ...], happenings: list[tuple[str, str, int, float]]
) -> None:
    history = play(plan, happenings)
    state = fold(history.events)
    for _ in range(50):
        due = next_deadline(state)
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
    assert len(ran) <= len(plan)


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
