"""The saga as data: a history in words, and what is decided after it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import UNSET, structs

from octollm.events.carrier import (
    CheckResult,
    CriterionResult,
    ErrorCode,
    ExitCodeCriterion,
    How,
    PlanRequested,
    Retry,
    Step,
    StepDispatched,
    StepFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskFailed,
)
from octollm.events.envelope import Event, event_id
from octollm.events.payload import Payload
from octollm.orchestrator.fold import evolve, fold
from octollm.orchestrator.saga import (
    FOLDED,
    MOST_PLANNING_ATTEMPTS,
    CancelAsked,
    Intent,
    ResumeAsked,
    TimerFired,
    Trigger,
    decide,
    in_time,
    next_deadline,
)
from octollm.orchestrator.state import CUT, Ended, Executing, New, Open, Planning, Unplanned
from tests.events.examples import example
from tests.orchestrator.history import (
    CONTAINS,
    TASK,
    History,
    at,
    check_step,
    executed,
    failed,
    file_step,
    passed,
    plan_failed,
    planned,
    received,
    step,
    stream,
)

CANCEL = CancelAsked("operator", "wrong folder")
LINE = (step("a"), step("b", "a"), step("c", "b"))
DIAMOND = (step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
WIDE = (step("a"), step("b"), step("c"))

PLANS = {"line": LINE, "diamond": DIAMOND, "wide": WIDE}


def said(intent: Intent) -> str:
    """An intent in short."""
    match intent.payload:
        case StepDispatched() as dispatched:
            again = f" {dispatched.attempt}" if dispatched.attempt > 1 else ""
            return f"dispatch {dispatched.step.id}{again}"
        case StepFailed() as given_up:
            return f"give up {given_up.step_id} {given_up.code}"
        case TaskFailed() as ended:
            return f"failed {ended.code}" + ("" if ended.step_id is UNSET else f" at {ended.step_id}")
        case _:
            return intent.kind.rpartition(".")[2]


def carry_out(history: History, trigger: Trigger = FOLDED) -> list[str]:
    """Appends and folds what is decided until nothing is left, as the runner does; what that was."""
    done: list[str] = []
    while intents := decide(fold(history.events), trigger):
        history.add(intents[0], seconds=_latest(history, trigger))
        done.append(said(intents[0]))
    return done


def _latest(history: History, trigger: Trigger) -> float:
    latest = max(event.stored_at for event in history.events)
    if isinstance(trigger, TimerFired):
        latest = max(latest, trigger.at)
    return (latest - at(0)).total_seconds()


def play(script: str, seconds: int = 300, retries: int = 0) -> tuple[History, list[str]]:
    """Plays a script and says what was decided after its last word.

    Words: a plan's name, `+a` step a executed, `-a` failed, `!a` was killed on request, `~a` found no sandbox (`~a2` on
    its second attempt), `noplan`, `cancel`, `resume`, `@30` a timer that fires 30 s after the start. Each word is a
    second after the one before.
    """
    history = History()
    history.add(received(seconds=seconds, retries=retries))
    decided = carry_out(history)
    for second, word in enumerate(script.split(), start=1):
        trigger: Trigger = FOLDED
        if word in PLANS:
            history.add(planned(*PLANS[word]), second)
        elif word == "noplan":
            history.add(plan_failed(), second)
        elif word == "cancel":
            trigger = CANCEL
        elif word == "resume":
            trigger = ResumeAsked("operator", history.position.version)
        elif word.startswith("@"):
            trigger = TimerFired(at(float(word[1:])))
        else:
            history.add(_result(word[0], word[1], int(word[2:] or 1)), second)
        decided = carry_out(history, trigger)
    return history, decided


def _result(mark: str, name: str, attempt: int) -> Payload:
    codes = {"-": ErrorCode.STEP_FAILED, "!": ErrorCode.CANCELLED, "~": ErrorCode.SANDBOX_UNAVAILABLE}
    if mark == "+":
        return executed(name, f"{name}\n", attempt=attempt)
    return failed(name, codes[mark], attempt=attempt)


@dataclass(frozen=True)
class Scenario:
    script: str
    decided: list[str]
    seconds: int = 300
    retries: int = 0


SCENARIOS = [
    # The good way.
    Scenario("", []),
    Scenario("line", ["dispatch a"]),
    Scenario("line +a", ["dispatch b"]),
    Scenario("line +a +b", ["dispatch c"]),
    Scenario("line +a +b +c", ["completed"]),
    # In parallel, as soon as dependencies have executed, in plan order.
    Scenario("wide", ["dispatch a", "dispatch b", "dispatch c"]),
    Scenario("diamond +a", ["dispatch b", "dispatch c"]),
    Scenario("diamond +a +c", []),
    Scenario("diamond +a +c +b", ["dispatch d"]),
    Scenario("diamond +a +b +c +d", ["completed"]),
    # No plan.
    Scenario("noplan", ["failed PLANNING_FAILED"]),
    # A failed step: nothing more is dispatched, what runs is let settle.
    Scenario("line -a", ["failed STEP_FAILED at a"]),
    Scenario("line +a -b", ["failed STEP_FAILED at b"]),
    Scenario("diamond +a -b", []),
    Scenario("diamond +a -b +c", ["failed STEP_FAILED at b"]),
    Scenario("diamond +a -c -b", ["failed STEP_FAILED at c"]),
    # A silent arm: a step's wall clock is 30 s, the grace 15 s, so it is given up 45 s after its dispatch.
    Scenario("line @45.9", []),
    Scenario("line @46", ["give up a ARM_UNAVAILABLE", "failed ARM_UNAVAILABLE at a"]),
    Scenario("wide +a @46", ["give up b ARM_UNAVAILABLE", "give up c ARM_UNAVAILABLE", "failed ARM_UNAVAILABLE at b"]),
    Scenario("diamond +a -b @47", ["give up c ARM_UNAVAILABLE", "failed STEP_FAILED at b"]),
    # A person's cancel: the executor kills, the saga waits for it, and gives a silent one up after the grace.
    Scenario("cancel", ["cancel_requested", "cancelled"]),
    Scenario("line cancel", ["cancel_requested"]),
    Scenario("line cancel !a", ["cancelled"]),
    Scenario("line cancel +a", ["cancelled"]),
    Scenario("wide cancel !a", []),
    Scenario("wide cancel !a +b !c", ["cancelled"]),
    Scenario("wide -a cancel !b !c", ["cancelled"]),
    Scenario("line cancel cancel", []),
    Scenario("line cancel @15.9", []),
    Scenario("line cancel @16", ["give up a ARM_UNAVAILABLE", "cancelled"]),
    # The task's own deadline.
    Scenario("@9.9", [], seconds=10),
    Scenario("@10", ["failed TIMEOUT"], seconds=10),
    Scenario("wide +b @10", ["give up a TIMEOUT", "give up c TIMEOUT", "failed TIMEOUT"], seconds=10),
    Scenario("wide -b @10", ["give up a TIMEOUT", "give up c TIMEOUT", "failed STEP_FAILED at b"], seconds=10),
    Scenario("line cancel @10", ["give up a TIMEOUT", "cancelled"], seconds=10),
    Scenario("line +a @5", ["give up b TIMEOUT", "failed TIMEOUT"], seconds=5),
    Scenario("line +a +b", ["failed TIMEOUT"], seconds=3),
    Scenario("line +a +b +c", ["completed"], seconds=4),
    # Another attempt, after a pause of half a second at most (the next: one second), while the budget lasts.
    Scenario("line ~a", [], retries=1),
    Scenario("line ~a @2.1", [], retries=1),
    Scenario("line ~a @2.5", ["dispatch a 2"], retries=1),
    Scenario("line ~a @2.5 +a2", ["dispatch b"], retries=1),
    Scenario("line ~a @2.5 ~a2", ["failed SANDBOX_UNAVAILABLE at a"], retries=1),
    Scenario("line ~a @2.5 ~a2 @5", ["dispatch a 3"], retries=2),
    Scenario("line ~a @2.5 ~a2 @5 ~a3", ["failed SANDBOX_UNAVAILABLE at a"], retries=10),
    Scenario("line -a", ["failed STEP_FAILED at a"], retries=10),
    Scenario("line @46", ["give up a ARM_UNAVAILABLE"], retries=1),
    Scenario("line @46 @46.5", ["dispatch a 2"], retries=1),
    Scenario("line ~a +z", [], retries=1),
    # Beside other steps: what is ready goes on; a failure for good ends it all; who failed first gets what is left.
    Scenario("diamond +a ~b +c", ["dispatch b 2"], retries=1),
    Scenario("diamond +a ~b @3.5 +c +b2", ["dispatch d"], retries=1),
    Scenario("wide ~a -b", [], retries=1),
    Scenario("wide ~a -b @9 +c", ["failed STEP_FAILED at b"], retries=1),
    Scenario("wide ~b ~a @9", [], retries=1),
    Scenario("wide ~b ~a @9 +c", ["failed SANDBOX_UNAVAILABLE at a"], retries=1),
    Scenario("wide ~b ~a", ["dispatch b 2"], retries=2),
    Scenario("wide ~b ~a @9", ["dispatch a 2"], retries=2),
    # Never after a cancel, nor once the time is up.
    Scenario("line ~a cancel", ["cancel_requested", "cancelled"], retries=1),
    Scenario("wide ~a cancel @9", [], retries=1),
    Scenario("line ~a @10", ["failed SANDBOX_UNAVAILABLE at a"], seconds=10, retries=1),
    Scenario("line ~a @3 @10", ["give up a TIMEOUT", "failed TIMEOUT"], seconds=10, retries=2),
    # A late result never counts for the attempt after.
    Scenario("line @46 +a", [], retries=1),
    Scenario("line @46 @47 +a", [], retries=1),
    Scenario("line @46 @47 -a", [], retries=1),
    Scenario("line @46 @47 +a +a2", ["dispatch b"], retries=1),
    # A person resumes.
    Scenario("resume", ["requested"]),
    Scenario("resume resume", ["requested"]),
    Scenario("resume line", ["dispatch a"]),
    Scenario("resume noplan", ["failed PLANNING_FAILED"]),
    Scenario("resume @10", ["failed TIMEOUT"], seconds=10),
    Scenario("line resume", []),
    Scenario("line +a +b +c resume", []),
    Scenario("cancel resume", []),
    # What does not apply.
    Scenario("line +b", []),
    Scenario("line +z", []),
    Scenario("line line", []),
    Scenario("line noplan", []),
    Scenario("line +a +a", []),
    Scenario("line +a -a", []),
    Scenario("+a", []),
    Scenario("-a line", ["dispatch a"]),
    Scenario("line @1", []),
]


@pytest.mark.parametrize(
    "scenario", SCENARIOS, ids=lambda scenario: f"{scenario.script}/{scenario.seconds}/{scenario.retries}"
)
def test_scenarios(scenario: Scenario) -> None:
    assert play(scenario.script, scenario.seconds, scenario.retries)[1] == scenario.decided


def test_a_line_of_three_steps_is_nine_events() -> None:
    history, _ = play("line +a +b +c")
    assert history.kinds == [
        "task.received",
        "task.planned",
        *["step.dispatched", "step.executed"] * 3,
        "task.completed",
    ]


def test_the_result_says_what_was_spent_and_what_came_out() -> None:
    history = History()
    history.add(received(), 0)
    history.add(planned(file_step("write"), step("a", "write"), file_step("c", "a"), cost=1200, tokens=(400, 100)), 0.5)
    for second, payload in enumerate([executed("write", "ignored"), executed("a", "hello\n"), executed("c", "noise")]):
        carry_out(history)
        history.add(payload, second + 1.25)
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    result = intent.payload.result
    assert (result.output, result.steps_executed, result.total_duration_ms) == ("hello\n", 3, 3250)
    assert (result.cost_micro_usd, result.tokens, result.criteria) == (1200, 500, [])
    assert intent.causation_id == history.events[-1].id


def test_the_answer_is_the_last_output_in_plan_order_not_in_time() -> None:
    history, _ = play("wide +c +a")
    history.add(executed("b", ""))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    assert intent.payload.result.output == "c\n"


def test_a_truncated_answer_shows_where_it_was_cut() -> None:
    history, _ = play("wide +a +b")
    history.add(executed("c", stream("head", "tail", truncated=True)))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    assert intent.payload.result.output == f"head{CUT}tail"


def test_criteria_are_judged_one_by_one_and_it_is_said_how() -> None:
    other = structs.replace(CONTAINS, text="world")
    never = structs.replace(CONTAINS, text="unchecked", path="b.txt")
    history = History()
    history.add(received("is polite", CONTAINS, never, other))
    # `verifies` gives the indices in the order of the check's own criteria.
    history.add(planned(step("a"), check_step("verify", "a", verifies={3: other, 1: CONTAINS})))
    carry_out(history)
    history.add(executed("a", "hello world\n"))
    carry_out(history)
    failing = structs.replace(passed(other), passed=False)
    history.add(executed("verify", checks=[passed(CONTAINS), failing]))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    assert intent.payload.result.criteria == [
        CriterionResult(text="is polite", passed=None, how=How.unjudged),
        CriterionResult(text="contains 'hello'", passed=True, how=How.machine),
        CriterionResult(text="file b.txt contains 'unchecked'", passed=None, how=How.unjudged),
        CriterionResult(text="contains 'world'", passed=False, how=How.machine),
    ]


def test_a_command_decides_criteria_by_its_acceptance() -> None:
    code = ExitCodeCriterion(code=3)
    deciding = structs.replace(step("a"), acceptance=[code, CONTAINS], verifies=[1])
    history = History()
    history.add(received("is polite", code))
    history.add(planned(deciding))
    carry_out(history)
    history.add(
        executed("a", checks=[CheckResult(criterion=code, passed=True, detail="exit code 3"), passed(CONTAINS)])
    )
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    assert [(one.passed, one.how) for one in intent.payload.result.criteria] == [
        (None, How.unjudged),
        (True, How.machine),
    ]


def test_a_dispatch_carries_the_step_and_its_deadline() -> None:
    history = History()
    history.add(received(seconds=60))
    history.add(planned(step("a", wall_ms=1000), step("b", wall_ms=300_000)), 2.0004)
    first, second = (intent.payload for intent in decide(fold(history.events), FOLDED))
    assert isinstance(first, StepDispatched)
    assert isinstance(second, StepDispatched)
    assert first.step == step("a", wall_ms=1000)
    assert first.deadline == "2026-11-22T12:00:18.001Z"
    assert second.deadline == "2026-11-22T12:01:00.000Z", "never after the task's own"


def test_a_late_dispatch_leaves_the_step_its_whole_time() -> None:
    history = History()
    history.add(received(seconds=300))
    history.add(planned(step("a")), 1)
    state = fold(history.events)
    assert isinstance(state, Open)
    (intent,) = decide(state, FOLDED)

    def told(now: float) -> str:
        late = in_time(state, intent, at(now))
        assert _id(late) == _id(intent)
        assert isinstance(late.payload, StepDispatched)
        return late.payload.deadline

    assert in_time(state, intent, at(16)) is intent
    assert told(16.5) == "2026-11-22T12:01:01.500Z"
    assert told(200) == "2026-11-22T12:04:05.000Z"
    assert told(290) == "2026-11-22T12:05:00.000Z", "never after the task's own"
    assert told(999) == "2026-11-22T12:05:00.000Z"


def test_next_deadline_is_the_earliest() -> None:
    history = History()
    assert next_deadline(fold(history.events)) is None
    history.add(received(), 0)
    assert next_deadline(fold(history.events)) == at(300)
    history.add(planned(step("a", wall_ms=60_000), step("b", wall_ms=1000)), 1)
    carry_out(history)
    assert next_deadline(fold(history.events)) == at(17)
    assert next_deadline(fold(history.events), grace=timedelta(seconds=1)) == at(3)
    history.add(executed("b"), 5)
    assert next_deadline(fold(history.events)) == at(76)
    carry_out(history, CANCEL)
    assert next_deadline(fold(history.events)) == at(20)
    history.add(failed("a", ErrorCode.CANCELLED))
    carry_out(history)
    assert next_deadline(fold(history.events)) is None


def test_a_dispatch_that_was_late_gives_the_arm_its_whole_time() -> None:
    history = History()
    history.add(received())
    history.add(planned(*LINE), 1)
    (dispatch,) = decide(fold(history.events), FOLDED)
    history.add(dispatch, 100)
    assert next_deadline(fold(history.events)) == at(145)
    assert decide(fold(history.events), TimerFired(at(144))) == ()


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_a_crash_between_dispatches_leaves_just_the_missing_ones_with_the_same_ids(stored: int) -> None:
    history = History()
    history.add(received())
    history.add(planned(*WIDE))
    before = decide(fold(history.events), FOLDED)
    for intent in before[:stored]:
        history.add(intent)
    after = decide(fold(history.events), FOLDED)
    assert after == before[stored:]
    assert [_id(intent) for intent in after] == [_id(intent) for intent in before[stored:]]
    assert decide(fold(history.events), TimerFired(at(5))) == after, "whatever wakes it"


def test_a_step_answers_the_last_of_its_dependencies() -> None:
    history, _ = play("diamond +a +c +b")
    by_kind = {(event.kind, event.data.get("step", {}).get("id")): event for event in history.events}
    results = [event for event in history.events if event.kind == "step.executed"]
    assert by_kind["step.dispatched", "b"].causation_id == results[0].id
    assert by_kind["step.dispatched", "d"].causation_id == results[-1].id


def test_another_attempt_answers_the_failure_and_has_an_id_of_its_own() -> None:
    history, _ = play("line ~a", retries=1)
    state = fold(history.events)
    due = next_deadline(state)
    assert due is not None
    assert at(2.25) <= due <= at(2.5)
    assert decide(state, TimerFired(due - timedelta(milliseconds=1))) == (), "a timer that is early"
    (intent,) = decide(state, TimerFired(due))
    assert (intent.causation_id, intent.key) == (history.events[-1].id, "1/a/2")
    assert intent == decide(state, TimerFired(due + timedelta(seconds=9)))[0], "whenever it is decided"
    assert isinstance(intent.payload, StepDispatched)
    assert intent.payload.attempt == 2
    assert datetime.fromisoformat(intent.payload.deadline) == due + timedelta(seconds=45)
    assert _id(intent) not in {event.id for event in history.events}


def test_an_attempt_that_could_not_begin_in_time_is_not_waited_for() -> None:
    patient = structs.replace(step("a"), retry=Retry(max_attempts=2, backoff_ms=60_000))
    history = History()
    history.add(received(seconds=20, retries=1))
    history.add(planned(patient))
    carry_out(history)
    history.add(failed("a", ErrorCode.SANDBOX_UNAVAILABLE))
    assert carry_out(history) == ["failed SANDBOX_UNAVAILABLE at a"]


def test_a_task_that_failed_says_how_often_it_was_tried() -> None:
    history, _ = play("line ~a @2.5 ~a2", retries=1)
    ended = history.events[-1].payload
    assert isinstance(ended, TaskFailed)
    assert ended.message == "step a (attempt 2): exit code 1"


def test_an_attempt_on_record_is_a_fact_whatever_todays_rules_say() -> None:
    history, _ = play("diamond +a -b", retries=0)
    (dispatch,) = (event.payload for event in history.events if event.data.get("step", {}).get("id") == "b")
    history.add(structs.replace(dispatch, attempt=2))
    assert carry_out(history) == []
    history.add(executed("b", attempt=2))
    history.add(executed("c"))
    assert carry_out(history) == ["dispatch d"]


def test_a_plan_is_asked_for_again_as_often_as_it_can_be_counted_and_once_per_resume() -> None:
    history = History()
    history.add(received())
    for attempt in range(2, MOST_PLANNING_ATTEMPTS + 1):
        asked = ResumeAsked("operator", history.position.version)
        (intent,) = decide(fold(history.events), asked)
        assert isinstance(intent.payload, PlanRequested)
        assert (intent.payload.attempt, intent.payload.requested_by) == (attempt, "operator")
        assert (intent.causation_id, intent.key) == (history.events[0].id, f"1/{attempt}")
        history.add(intent)
        assert decide(fold(history.events), asked) == (), "what was asked for is on record"
    assert carry_out(history, ResumeAsked("operator", history.position.version)) == []
    assert next_deadline(fold(history.events)) == at(300)


def test_a_given_up_step_answers_its_dispatch_and_ends_the_time_of_the_broker() -> None:
    history, _ = play("line @46")
    dispatched, given_up, ended = history.events[-3:]
    assert given_up.causation_id == dispatched.id
    assert ended.causation_id == given_up.id
    assert isinstance(ended.payload, TaskFailed)
    assert ended.payload.spent.total_duration_ms == 46_000


def test_a_cancel_is_recorded_once_and_names_who_asked() -> None:
    history, _ = play("line cancel cancel !a")
    (asked,) = (event for event in history.events if event.kind == "task.cancel_requested")
    assert asked.causation_id == history.events[0].id, "the same id whenever it is asked"
    ended = history.events[-1].payload
    assert isinstance(ended, TaskCancelled)
    assert (ended.requested_by, ended.reason) == ("operator", "wrong folder")


def test_of_two_cancels_on_record_the_first_counts() -> None:
    history, _ = play("line cancel")
    history.add(TaskCancelRequested(requested_by="somebody else"), 10)
    assert next_deadline(fold(history.events)) == at(16)
    history.add(failed("a", ErrorCode.CANCELLED))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCancelled)
    assert intent.payload.requested_by == "operator"


def test_a_result_of_another_attempt_or_plan_does_not_apply() -> None:
    history, _ = play("line")
    for result in (executed("a"), failed("a")):
        history.add(structs.replace(result, attempt=2))
        history.add(structs.replace(result, plan_version=2))
    assert carry_out(history) == []


def test_a_dispatch_on_record_twice_does_not_start_the_step_again() -> None:
    history, _ = play("line +a")
    dispatched = next(event for event in history.events if event.kind == "step.dispatched")
    before = fold(history.events)
    history.add(dispatched.payload)
    assert fold(history.events) == replace(before, position=history.position)


def test_time_never_goes_back_even_if_the_brokers_clock_does() -> None:
    history = History()
    history.add(received(), 0)
    history.add(planned(*LINE), 10)
    carry_out(history)
    history.add(executed("a"), 5)
    state = fold(history.events)
    assert isinstance(state, Executing)
    assert state.at == at(10)
    (dispatch,) = decide(state, FOLDED)
    assert isinstance(dispatch.payload, StepDispatched)
    assert dispatch.payload.deadline == "2026-11-22T12:00:55.000Z"


def test_a_plan_failure_keeps_its_code_message_and_cost() -> None:
    history = History()
    history.add(received(), 0)
    history.add(plan_failed(ErrorCode.LLM_UNAVAILABLE, "no answer from the model"), 1.5)
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskFailed)
    assert intent.payload.code == ErrorCode.LLM_UNAVAILABLE
    assert intent.payload.message == "no answer from the model"
    spent = intent.payload.spent
    assert (spent.cost_micro_usd, spent.tokens, spent.total_duration_ms, spent.steps_executed) == (9, 100, 1500, 0)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((step("a"), step("a")), "same id"),
        ((step("a", "nowhere"),), "nowhere"),
        ((step("a", "b"), step("b", "a")), "wait for each other"),
    ],
    ids=["twins", "dangling", "cycle"],
)
def test_a_plan_that_can_not_end_fails_at_once(steps: tuple[Step, ...], words: str) -> None:
    history = History()
    history.add(received())
    history.add(planned(*steps))
    state = fold(history.events)
    assert isinstance(state, Unplanned)
    (intent,) = decide(state, FOLDED)
    assert isinstance(intent.payload, TaskFailed)
    assert intent.payload.code == ErrorCode.PLANNING_FAILED
    assert words in intent.payload.message


def test_what_this_version_can_not_read_only_advances_the_position() -> None:
    history = History()
    history.add(received())
    before = fold(history.events)
    foreign = History()
    foreign.events = list(history.events)
    event = foreign.add(planned(*LINE))
    strange = Event(**{**_fields(event), "schema_version": 99})
    after = evolve(before, strange)
    assert isinstance(after, Planning)
    assert after.position.version == 2
    assert decide(after, FOLDED) == ()


def test_the_log_of_a_rejected_task_is_ended_and_an_unknown_one_is_new() -> None:
    history = History()
    history.add(example("task.rejected"))
    state = fold(history.events)
    assert isinstance(state, Ended)
    assert state.outcome == "rejected"
    assert decide(New(), CANCEL) == ()


def test_a_huge_answer_still_fits_into_the_last_event() -> None:
    history, _ = play("wide +a +b")
    history.add(executed("c", stream("\x01" * 20_000, "\x02" * 20_000)))
    (intent,) = decide(fold(history.events), FOLDED)
    assert isinstance(intent.payload, TaskCompleted)
    output = intent.payload.result.output
    assert output.startswith("\x01" * 16_000 + CUT)
    assert output.endswith("\x02" * 16_000)


def _id(intent: Intent) -> str:
    return event_id(TASK, intent.causation_id, intent.kind, intent.key)


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}
