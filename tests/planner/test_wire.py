"""The shape in which models write plans, prices, and the effect of actions."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from octollm.events.carrier import Action, Budget, Effect, Price, TokenUsage
from octollm.planner.effects import effect_of
from octollm.planner.llm import wire
from octollm.planner.llm.budget import BudgetExceeded, Ledger, estimate
from octollm.planner.llm.pricing import cost_micro_usd, price_of
from octollm.planner.programs import PROGRAMS
from octollm.planner.recipes import book
from tests.planner.chat import GOOD_PLAN
from tests.planner.tasks import command


@pytest.mark.parametrize("recipe", book.RECIPES, ids=lambda recipe: recipe.example)
def test_a_plan_survives_the_wire(recipe: Any) -> None:
    steps = book.steps_for(recipe.example)
    assert steps
    text = wire.encode(steps, 80)
    jsonschema_rs.Draft202012Validator(wire.SCHEMA).validate(msgspec.json.decode(text))
    assert wire.decode(text) == (steps, 80)


def test_the_schema_keeps_to_what_strict_modes_accept() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        if not isinstance(node, dict):
            return
        assert not node.keys() & {"minimum", "maximum", "minLength", "maxLength", "pattern", "oneOf", "minItems"}
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
            node = node["properties"]
        for value in node.values():
            walk(value)

    walk(wire.SCHEMA)
    jsonschema_rs.Draft202012Validator(wire.SCHEMA).validate(GOOD_PLAN)


@pytest.mark.parametrize(
    ("action", "effect"),
    [
        (command("ls"), Effect.pure),
        ({"kind": "command", "pipeline": [["cat", "a"], ["sort"], ["uniq", "-c"]]}, Effect.pure),
        ({"kind": "check", "criteria": [{"kind": "file_exists", "path": "a"}]}, Effect.pure),
        (command("mkdir", "-p", "a"), Effect.idempotent),
        (command("cp", "a", "b"), Effect.idempotent),
        (command("sort", "a", redirect={"path": "b"}), Effect.idempotent),
        ({"kind": "file", "op": "write", "path": "a", "text": "x"}, Effect.idempotent),
        ({"kind": "file", "op": "mkdir", "path": "a"}, Effect.idempotent),
        (command("sort", "a", redirect={"path": "a"}), Effect.side_effecting),
        (command("echo", "x", redirect={"path": "a", "append": True}), Effect.side_effecting),
        (command("tee", "-a", "log"), Effect.side_effecting),
        (command("mv", "a", "b"), Effect.side_effecting),
        (command("rm", "a"), Effect.side_effecting),
        (command("curl", "x"), Effect.side_effecting),
        ({"kind": "file", "op": "append", "path": "a", "text": "x"}, Effect.side_effecting),
        ({"kind": "file", "op": "delete", "path": "a"}, Effect.side_effecting),
    ],
)
def test_an_action_has_the_effect_of_what_it_does(action: dict[str, Any], effect: Effect) -> None:
    parsed: Action = msgspec.convert(action, Action)
    assert effect_of(parsed) is effect


def test_the_executor_runs_what_plans_may_use() -> None:
    policy = Path(__file__).parents[2] / "arms" / "executor" / "policy" / "default.toml"
    allowed = tomllib.loads(policy.read_text())["commands"].keys()
    assert set(PROGRAMS) <= allowed


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-4o-mini", True),
        ("gpt-4o-mini-2024-07-18", True),
        ("gpt-5", True),
        ("llama3.2", False),
        ("gpt-4o-x", False),
    ],
)
def test_prices_are_known_by_model_with_or_without_its_date(model: str, known: bool) -> None:
    assert (price_of(model) is not None) is known


def test_cost_is_rounded_up_to_a_micro_dollar() -> None:
    price = Price(input_micro_usd_per_million=150_000, output_micro_usd_per_million=600_000)
    assert cost_micro_usd(TokenUsage(input_tokens=1, output_tokens=0), price) == 1
    assert cost_micro_usd(TokenUsage(input_tokens=2_000_000, output_tokens=1_000_000), price) == 900_000
    assert cost_micro_usd(TokenUsage(input_tokens=5, output_tokens=5), None) == 0


def test_what_is_reserved_and_used_stays_within_the_budget() -> None:
    budget = Budget(max_tokens=3_000, max_cost_usd=0.0008, max_time_seconds=60, max_retries=0)
    price = Price(input_micro_usd_per_million=150_000, output_micro_usd_per_million=600_000)
    ledger = Ledger(budget, price)
    assert ledger.reserve(1_000, 500) == 500
    assert ledger.reserve(1_000, 9_999) == 1_083  # (800 − 150) micro-USD at 0.6 a token
    ledger.settle(TokenUsage(input_tokens=1_000, output_tokens=1_000))
    with pytest.raises(BudgetExceeded, match="cost budget"):
        ledger.reserve(500, 500)
    with pytest.raises(BudgetExceeded, match="token budget"):
        ledger.reserve(900, 500)
    with pytest.raises(BudgetExceeded, match="3001 tokens"):
        ledger.settle(TokenUsage(input_tokens=1, output_tokens=1_000))
    assert ledger.usage == TokenUsage(input_tokens=1_001, output_tokens=2_000)


def test_a_call_that_cost_more_than_the_budget_is_booked_and_told() -> None:
    budget = Budget(max_tokens=3_000, max_cost_usd=0.0001, max_time_seconds=60, max_retries=0)
    ledger = Ledger(budget, Price(input_micro_usd_per_million=150_000, output_micro_usd_per_million=600_000))
    with pytest.raises(BudgetExceeded, match="600 micro-USD are used"):
        ledger.settle(TokenUsage(input_tokens=0, output_tokens=1_000))
    assert ledger.cost_micro_usd == 600


def test_an_estimate_is_rather_too_high() -> None:
    assert estimate("") == 0
    assert estimate("four") == 2
    assert estimate("ü" * 3) == 2
