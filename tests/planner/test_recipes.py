"""Recipes as data: goals, the plans they get, and what those plans do when they are run."""

import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, TaskPlanned
from octollm.planner import offline
from octollm.planner.recipes import book
from octollm.planner.recipes.recipe import Unsupported
from octollm.planner.validation import violations
from tests.planner.interpreter import run
from tests.planner.tasks import planned, received

FAMILIES = {path.stem: yaml.safe_load(path.read_text()) for path in (Path(__file__).parent / "recipes").glob("*.yaml")}


def rows(kind: str) -> list[Any]:
    return [
        pytest.param(row, id=f"{family}: {row['goal'] if isinstance(row, dict) else row}"[:80])
        for family, table in sorted(FAMILIES.items())
        for row in table[kind]
    ]


def test_every_family_has_its_table() -> None:
    modules = {Path(module.__file__).stem for module in vars(book).values() if hasattr(module, "RECIPES")}
    assert modules == set(FAMILIES)


@pytest.mark.parametrize("row", rows("planned"))
def test_a_goal_is_planned_and_the_plan_reaches_it(row: dict[str, Any], tmp_path: Path) -> None:
    for name, text in row.get("files", {}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    plan = planned(offline.plan(received(row["goal"])))
    assert [step.id for step in plan.steps] == row["steps"]
    result = run(msgspec.to_builtins(plan.steps), tmp_path)
    answer = result.answer.rstrip("\n")
    if "answer_like" in row:
        assert re.fullmatch(row["answer_like"], answer)
    else:
        assert answer == row["answer"]
    for name, text in row.get("leaves", {}).items():
        assert (tmp_path / name).read_text() == text
    if "leaves" not in row and "answer_like" not in row:
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert left == set(row.get("files", {})), "a plan leaves no file behind that nobody asked for"


@pytest.mark.parametrize("row", rows("refused"))
def test_what_a_recipe_cannot_do_is_refused_with_the_reason(row: dict[str, str]) -> None:
    outcome = offline.plan(received(row["goal"]))
    assert isinstance(outcome, PlanFailed)
    assert (outcome.code, outcome.class_) == (ErrorCode.PLANNING_FAILED, PlanFailureClass.unsupported)
    assert row["says"] in outcome.message


@pytest.mark.parametrize("goal", rows("unknown"))
def test_a_goal_that_only_resembles_a_recipe_is_not_guessed_at(goal: str) -> None:
    outcome = offline.plan(received(goal))
    assert isinstance(outcome, PlanFailed)
    assert outcome.class_ is PlanFailureClass.unsupported
    assert "no recipe for this goal" in outcome.message
    assert "Echo hello world" in outcome.message
    assert "OCTO_PLANNER__PROVIDER" in outcome.message
    assert "submit a plan" in outcome.message


@pytest.mark.parametrize("recipe", book.RECIPES, ids=lambda recipe: recipe.example)
def test_the_examples_that_a_refusal_names_are_planned(recipe: Any) -> None:
    assert offline.plan(received(recipe.example)).__class__ is TaskPlanned


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"constraints": ["finish within a second"]}, "constraints"),
        ({"context": {"user": "x"}}, "context"),
        ({"constraints": ["a"], "context": {"b": 1}}, "constraints and context"),
    ],
)
def test_what_a_recipe_cannot_honour_is_not_ignored(fields: dict[str, Any], named: str) -> None:
    outcome = offline.plan(received("Echo hello", **fields))
    assert isinstance(outcome, PlanFailed)
    assert outcome.class_ is PlanFailureClass.unsupported
    assert f"can't take {named} into account" in outcome.message


def test_prose_criteria_change_nothing_about_a_plan() -> None:
    with_prose = offline.plan(received("Echo hello", acceptance_criteria=["it is friendly"]))
    assert with_prose == offline.plan(received("Echo hello"))


def test_machine_criteria_are_checked_after_a_recipe() -> None:
    plan = planned(offline.plan(received("Echo hi", acceptance_criteria=["nice", {"kind": "contains", "text": "hi"}])))
    last = msgspec.to_builtins(plan.steps[-1])
    assert (last["id"], last["verifies"], last["depends_on"]) == ("acceptance", [1], ["verify"])
    assert last["action"]["criteria"] == [{"kind": "contains", "text": "hi", "step": "echo"}]


def test_a_criterion_that_no_plan_can_meet_is_the_callers_mistake() -> None:
    criterion = {"kind": "contains", "text": "hi", "step": "nosuch"}
    outcome = offline.plan(received("Echo hi", acceptance_criteria=[criterion]))
    assert isinstance(outcome, PlanFailed)
    assert outcome.code is ErrorCode.INVALID_REQUEST
    assert "criterion 0 of the task: reads step 'nosuch'" in outcome.message


# Words that recipes know, in any order, between text of any kind.
_WORDS = sorted({word for table in FAMILIES.values() for row in table["planned"] for word in row["goal"].split()})
_GOALS = st.lists(st.sampled_from(_WORDS) | st.text(max_size=8), min_size=1, max_size=12).map(" ".join)


@given(_GOALS.filter(str.strip))
def test_any_goal_ends_in_a_valid_plan_or_a_refusal(goal: str) -> None:
    try:
        steps = book.steps_for(goal)
    except Unsupported:
        return
    assert steps is None or [v for v in violations(steps) if v.rule != "argument"] == []


@pytest.mark.parametrize(
    "goal",
    [
        "write " + "to " * 3300,
        "what is " + "(" * 9990,
        "write x to a" + " and verify" * 900 + " z",
        "list all files in a " + "in a " * 1990,
        "create a file a with " + '" ' * 4900,
        "echo" + " " * 9000 + "\n",
        "please " * 1400,
    ],
    ids=lambda goal: goal[:20],
)
def test_a_hostile_goal_costs_no_time(goal: str) -> None:
    started = time.process_time()
    offline.plan(received(goal[:10000]))
    assert time.process_time() - started < 1
