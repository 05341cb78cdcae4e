"""Every rule of a valid plan, broken once; and the plans that break none."""

from typing import Any

import msgspec
import pytest

from octollm.events.carrier import ErrorCode, FileExistsCriterion, PlanFailed, PlanFailureClass
from octollm.planner.validation import violations
from tests.planner.tasks import command, own_plan, plan, planned, step

FILE = {"kind": "file", "op": "write", "path": "a.txt"}
SHOW = step("show", action=command("cat", "a.txt"))


def check(*criteria: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "check", "criteria": list(criteria)}


def contains(**target: str) -> dict[str, str]:
    return {"kind": "contains", "text": "x", **target}


BROKEN: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "same id twice": ([step("a"), step("b"), step("a")], "unique_ids", "step a:"),
    "unknown dependency": ([step("a", "b")], "known_dependencies", "step a: depends on 'b'"),
    "depends on itself": ([step("a", "a")], "acyclic", "a → a"),
    "cycle of three": ([step("a", "c"), step("b", "a"), step("c", "b")], "acyclic", "a → c → b → a"),
    "unknown arm": ([step("a", arm="coder")], "known_arm", "no arm is called 'coder'; known: executor"),
    "text and base64": ([step("a", action={**FILE, "text": "x", "base64": "eA=="})], "file_content", "not both"),
    "broken base64": ([step("a", action={**FILE, "base64": "e"})], "file_content", "base64 is not valid"),
    "directory with content": ([step("a", action={**FILE, "op": "mkdir", "text": "x"})], "file_content", "no text"),
    "delete with mode": ([step("a", action={**FILE, "op": "delete", "mode": "644"})], "file_content", "no mode"),
    "NUL in an argument": ([step("a", action=command("echo", "a\0b"))], "argument", "holds a NUL"),
    "side effect tried again": (
        [step("a", effect="side_effecting", retry={"max_attempts": 2, "on": ["TIMEOUT"]})],
        "retry",
        "can't run again after TIMEOUT",
    ),
    "check of nothing": ([step("a", action=check(contains()))], "readable_criterion", "reads nothing"),
    "check of an exit code": (
        [step("a", action=check({"kind": "exit_code", "code": 0}))],
        "exit_code",
        "a check runs nothing",
    ),
    "file step that fails": (
        [step("a", action={**FILE, "text": "x"}, acceptance=[{"kind": "exit_code", "code": 1}])],
        "exit_code",
        "only a command can end with 1",
    ),
    "output of a file step": (
        [step("a", action={**FILE, "text": "x"}, acceptance=[contains()])],
        "readable_criterion",
        "reads an output that this step does not write",
    ),
    "output that is redirected": (
        [step("a", action=command("echo", "x", redirect={"path": "o"}), acceptance=[contains()])],
        "readable_criterion",
        "does not write",
    ),
    "path and step": (
        [SHOW, step("c", "show", action=check(contains(path="a.txt", step="show")))],
        "readable_criterion",
        "names a path and a step",
    ),
    "step that is not before": (
        [SHOW, step("c", action=check(contains(step="show")))],
        "readable_criterion",
        "not among the steps that have run before",
    ),
    "step that is not a command": (
        [step("w", action={**FILE, "text": "x"}), step("c", "w", action=check(contains(step="w")))],
        "readable_criterion",
        "not a command",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named_with_its_place(name: str) -> None:
    steps, rule, says = BROKEN[name]
    found = violations(plan(*steps))
    assert [violation.rule for violation in found] == [rule]
    assert says in str(found[0])


@pytest.mark.parametrize("name", BROKEN)
def test_a_callers_broken_plan_fails_as_its_mistake(name: str) -> None:
    steps, rule, says = BROKEN[name]
    outcome = own_plan(*steps)
    assert isinstance(outcome, PlanFailed)
    assert outcome.code is ErrorCode.INVALID_REQUEST
    assert outcome.class_ is PlanFailureClass.invalid_plan
    assert (outcome.provider, outcome.retryable) == ("caller", False)
    assert rule in outcome.message
    assert says in outcome.message


def test_every_violation_is_found_at_once() -> None:
    steps = plan(step("a", "nosuch", arm="coder"), step("b", action=command("x\0")))
    assert [violation.rule for violation in violations(steps)] == ["known_dependencies", "known_arm", "argument"]


def test_programs_count_only_where_they_are_given() -> None:
    steps = plan(step("a", action={"kind": "command", "pipeline": [["ls"], ["python", "-"], ["awk", "x"]]}))
    assert violations(steps) == []
    found = violations(steps, programs=["ls", "wc"])
    assert [str(violation)[:40] for violation in found] == [
        "step a: 'python' can't be run here; use ",
        "step a: 'awk' can't be run here; use one",
    ]


@pytest.mark.parametrize(
    ("verifies", "says"),
    [([0], "prose"), ([2], "no criterion 2"), ([1, 1], "twice"), ([1, 1], "2 criteria with 1 checks")],
)
def test_verifies_points_at_machine_criteria_that_are_decided(verifies: list[int], says: str) -> None:
    machine = FileExistsCriterion(path="a")
    steps = [
        msgspec.structs.replace(one, verifies=verifies)
        for one in plan(step("a", action=check({"kind": "file_exists", "path": "a"})))
    ]
    found = violations(steps, ["prose", machine])
    assert {violation.rule for violation in found} == {"verifies"}
    assert any(says in str(violation) for violation in found)


def test_a_wide_and_deep_plan_is_valid() -> None:
    steps = [step(f"s{n}", *[f"s{m}" for m in range(max(0, n - 5), n)]) for n in range(50)]
    assert violations(plan(*steps)) == []
    assert violations(plan(*reversed(steps))) == []


def test_what_a_caller_leaves_out_is_filled_in() -> None:
    draft = {"id": "a", "action": {"kind": "command", "pipeline": [["ls"], ["wc", "-l"]]}}
    outcome = planned(own_plan(draft))
    assert msgspec.to_builtins(outcome) == {
        "plan_version": 1,
        "steps": [
            {
                "id": "a",
                "title": "Run ls | wc",
                "arm": "executor",
                "action": {"kind": "command", "pipeline": [["ls"], ["wc", "-l"]]},
                "depends_on": [],
                "acceptance": [],
                "effect": "side_effecting",
                "limits": {"wall_ms": 30_000, "memory_bytes": 536_870_912, "output_bytes": 1_048_576},
            }
        ],
        "provider": "caller",
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "cost_micro_usd": 0,
        "confidence": 1000,
        "repairs": 0,
    }


def test_what_a_caller_gives_is_kept() -> None:
    given = {
        "id": "w",
        "title": "mine",
        "arm": "executor",
        "action": {"kind": "file", "op": "write", "path": "d/e", "base64": "eA==", "mode": "600"},
        "depends_on": [],
        "acceptance": [{"kind": "file_exists", "path": "d/e"}],
        "effect": "idempotent",
        "limits": {"wall_ms": 100},
        "retry": {"max_attempts": 5, "backoff_ms": 20, "on": ["STEP_FAILED"]},
    }
    outcome = planned(own_plan(given))
    limits = {"wall_ms": 100, "memory_bytes": 536_870_912, "output_bytes": 1_048_576}
    assert msgspec.to_builtins(outcome.steps) == [given | {"limits": limits}]


@pytest.mark.parametrize(
    ("action", "title"),
    [
        ({"kind": "file", "op": "append", "path": "log"}, "Append to log"),
        ({"kind": "file", "op": "mkdir", "path": "d"}, "Make the directory d"),
        ({"kind": "file", "op": "delete", "path": "d"}, "Delete d"),
        ({"kind": "file", "op": "write", "path": "p" * 500}, "Write " + "p" * 193 + "…"),
        (check({"kind": "file_exists", "path": "a"}), "Check one criterion"),
        (check(contains(path="a"), contains(path="b")), "Check 2 criteria"),
    ],
)
def test_a_title_says_what_the_action_does(action: dict[str, Any], title: str) -> None:
    assert plan(step("a", action=action))[0].title == title
