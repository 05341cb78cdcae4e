"""The task's machine criteria as part of the plan."""

from typing import Any

import msgspec
import pytest

from octollm.events.carrier import TaskPlanned
from octollm.planner.outcome import Outcome
from tests.planner.tasks import command, own_plan, planned, step


def outcome(steps: list[dict[str, Any]], *criteria: Any) -> Outcome:
    return own_plan(*steps, acceptance_criteria=list(criteria))


def steps_of(steps: list[dict[str, Any]], *criteria: Any) -> list[dict[str, Any]]:
    built: list[dict[str, Any]] = msgspec.to_builtins(planned(outcome(steps, *criteria)).steps)
    return built


def message(steps: list[dict[str, Any]], *criteria: Any) -> str:
    failed = outcome(steps, *criteria)
    assert not isinstance(failed, TaskPlanned)
    return failed.message


CONTAINS = {"kind": "contains", "text": "x"}
EXISTS = {"kind": "file_exists", "path": "a"}
ECHO = command("echo", "x")
WRITE = {"kind": "file", "op": "write", "path": "a", "text": "x"}


def test_without_machine_criteria_the_plan_stays_as_it_is() -> None:
    assert [one["id"] for one in steps_of([step("a")], "prose", "more prose")] == ["a"]


def test_one_check_after_every_leaf() -> None:
    steps = steps_of([step("a"), step("b", "a"), step("c", "a"), step("d")], "prose", EXISTS)
    assert steps[-1] == {
        "id": "acceptance",
        "title": "Check the task's acceptance criteria",
        "arm": "executor",
        "action": {"kind": "check", "criteria": [EXISTS]},
        "depends_on": ["b", "c", "d"],
        "acceptance": [],
        "effect": "pure",
        "limits": {"wall_ms": 30_000, "memory_bytes": 536_870_912, "output_bytes": 1_048_576},
        "verifies": [1],
    }


def test_its_id_gives_way() -> None:
    ids = [one["id"] for one in steps_of([step("acceptance"), step("acceptance-2")], EXISTS)]
    assert ids == ["acceptance", "acceptance-2", "acceptance-3"]


@pytest.mark.parametrize("kind", ["contains", "equals", "regex", "json_path"])
def test_a_criterion_without_a_target_reads_the_last_output(kind: str) -> None:
    owns: dict[str, dict[str, Any]] = {
        "contains": {"text": "x"},
        "equals": {"text": "x"},
        "regex": {"pattern": "x"},
        "json_path": {"query": "$", "equals": {"a": [1]}},
    }
    own = owns[kind]
    redirected = step("r", "e", action=command("echo", "y", redirect={"path": "a"}))
    steps = steps_of(
        [step("first"), step("e", action=ECHO), redirected, step("w", action=WRITE)], {"kind": kind, **own}
    )
    assert steps[-1]["action"]["criteria"] == [{"kind": kind, **own, "step": "e"}]


def test_criteria_with_a_target_keep_it_and_their_order() -> None:
    given = [{**CONTAINS, "path": "a"}, "prose", EXISTS, {**CONTAINS, "step": "a"}]
    last = steps_of([step("a", action=ECHO), step("b", "a", action=ECHO)], *given)[-1]
    assert last["action"]["criteria"] == [given[0], given[2], given[3]]
    assert last["verifies"] == [0, 2, 3]


def test_an_exit_code_is_decided_by_the_last_command() -> None:
    steps = [step("a"), step("b", "a", action=command("false"), acceptance=[{**EXISTS}]), step("w", "b", action=WRITE)]
    built = steps_of(steps, EXISTS, {"kind": "exit_code", "code": 1})
    assert [one["id"] for one in built] == ["a", "b", "w", "acceptance"]
    assert built[1]["acceptance"] == [{"kind": "exit_code", "code": 1}, EXISTS]
    assert built[1]["verifies"] == [1]
    assert built[-1]["verifies"] == [0]


def test_an_exit_code_that_the_step_names_already_is_not_repeated() -> None:
    code = {"kind": "exit_code", "code": 2}
    built = steps_of([step("a", acceptance=[EXISTS, code])], code)
    assert built == [built[0] | {"acceptance": [code, EXISTS], "verifies": [0]}]


def test_every_index_has_its_check() -> None:
    code = {"kind": "exit_code", "code": 0}
    built = steps_of([step("a")], code, "prose", code)
    assert (built[0]["acceptance"], built[0]["verifies"]) == ([code, code], [0, 2])


@pytest.mark.parametrize(
    ("steps", "criteria", "says"),
    [
        ([step("w", action=WRITE)], [CONTAINS], "criterion 0 of the task: reads an output, but no step"),
        (
            [step("w", action=WRITE)],
            ["prose", {"kind": "exit_code", "code": 0}],
            "criterion 1 of the task: asks for an",
        ),
        (
            [step("a")],
            [{"kind": "exit_code", "code": 0}, {"kind": "exit_code", "code": 1}],
            "with another that is asked",
        ),
        ([step("a", acceptance=[{"kind": "exit_code", "code": 3}])], [{"kind": "exit_code", "code": 0}], "another"),
        ([step("a", acceptance=[EXISTS] * 10)], [{"kind": "exit_code", "code": 0}], "too many acceptance criteria"),
        ([step("a")], [{**CONTAINS, "step": "z"}], "reads step 'z', which is not among the steps"),
        ([step("w", action=WRITE)], [{**CONTAINS, "step": "w"}], "not a command"),
        ([step("a")], [{**CONTAINS, "step": "a", "path": "b"}], "names a path and a step"),
    ],
)
def test_a_criterion_that_cannot_be_decided_is_named(steps: Any, criteria: Any, says: str) -> None:
    assert says in message(steps, *criteria)


def test_fifty_steps_and_ten_criteria_fit() -> None:
    built = steps_of([step(f"s{n}") for n in range(50)], *[EXISTS] * 10)
    assert len(built) == 51
    assert len(built[-1]["depends_on"]) == 50
