"""`octo policy`: the executor's policy checked, explained and compared; what the planner plans is within it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from octollm.events.carrier import CommandAction
from octollm.planner import offline
from octollm.planner.programs import SYNOPSES
from octollm.stack import StackOptions
from octollm.stack.services import find
from tests.planner.tasks import planned, received

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "arms" / "executor" / "policy" / "default.toml"
RECIPES = ROOT / "tests" / "planner" / "recipes"
TIMEOUT_S = 60


def policy(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = find(("octollm-executor", "policy", *arguments), StackOptions().bin_dir)
    return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_octo_hands_its_arguments_on() -> None:
    argv = [sys.executable, "-m", "octollm.cli.main", "policy", "explain", "default", "wc"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=os.environ)
    assert told.stdout.startswith("wc [-")


def test_the_built_in_policy_keeps_its_own_examples() -> None:
    checked = policy("check", str(DEFAULT))
    assert checked.returncode == 0, checked.stdout
    assert "digest " in checked.stdout
    assert checked.stdout == policy("check", "default").stdout


def test_an_example_that_fails_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "policy.toml"
    wrong.write_text(DEFAULT.read_text().replace('deny = [["x"], []]', 'deny = [["5"]]', 1))
    checked = policy("check", str(wrong))
    assert checked.returncode == 1
    assert 'example: ["seq"] ["5"] should be denied' in checked.stdout


def test_a_file_that_is_no_policy_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "policy.toml"
    wrong.write_text(DEFAULT.read_text().replace("[maximum]", "[maxima]"))
    checked = policy("check", str(wrong))
    assert checked.returncode == 2
    assert "maxima" in checked.stderr


@pytest.mark.parametrize(
    ("argv", "allowed", "says"),
    [
        (["find", ".", "-exec", "wc", "-l", "{}", "+"], True, "/usr/bin/wc"),
        (["find", ".", "-exec", "sh", "-c", "id", ";"], False, 'find: "sh" is not a command that is allowed'),
        (["sort", "--uniq"], False, "allowed is the full name, --unique"),
    ],
)
def test_a_command_is_explained(argv: list[str], allowed: bool, says: str) -> None:
    told = policy("explain", "--json", "--", *argv)
    document = json.loads(told.stdout)
    assert (told.returncode == 0, document["allowed"]) == (allowed, allowed)
    assert says in (document["reason"] if not allowed else " ".join(document["view"]))


def test_a_difference_is_told_by_what_it_allows(tmp_path: Path) -> None:
    new = tmp_path / "policy.toml"
    new.write_text(DEFAULT.read_text().replace("[commands.wc]", "[commands.count]", 1).replace("-S=text", "-Q=text", 1))
    told = policy("diff", str(DEFAULT), str(new))
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert "+ count runs /usr/bin/wc" in lines
    assert "- wc runs /usr/bin/wc" in lines
    assert "+ git log -Q TEXT" in lines
    assert "- git log -S TEXT" in lines
    assert policy("diff", str(DEFAULT), "default").stdout == ""


def test_the_planner_says_of_each_program_what_the_policy_says() -> None:
    offered = json.loads(policy("explain", "--json").stdout)["commands"]
    assert {name: offered[name][0] for name in SYNOPSES} == SYNOPSES


def test_what_the_embedded_planner_plans_is_allowed() -> None:
    goals = [
        row["goal"] for path in sorted(RECIPES.glob("*.yaml")) for row in yaml.safe_load(path.read_text())["planned"]
    ]
    actions = [step.action for goal in goals for step in planned(offline.plan(received(goal))).steps]
    stages = {tuple(stage) for action in actions if isinstance(action, CommandAction) for stage in action.pipeline}
    # One of each shape: the same options, whatever the names of files and the numbers are.
    shapes = {
        tuple(word if word.startswith("-") or index == 0 else "" for index, word in enumerate(stage)): stage
        for stage in sorted(stages)
    }
    denied = {stage: told.stdout for stage in shapes.values() if (told := policy("explain", "--", *stage)).returncode}
    assert len(shapes) > 10
    assert denied == {}
