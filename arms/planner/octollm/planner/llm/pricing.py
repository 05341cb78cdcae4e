"""What tokens cost: a dated table of list prices."""

import json
import re
from functools import cache
from importlib.resources import files

from octollm.events.carrier import Price, TokenUsage

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@cache
def _table() -> dict[str, Price]:
    """Model → price, from prices.json."""
    document = json.loads((files("octollm.planner.llm") / "prices.json").read_text())
    return {
        model: Price(input_micro_usd_per_million=row["input"], output_micro_usd_per_million=row["output"])
        for model, row in document["micro_usd_per_million_tokens"].items()
    }


def price_of(model: str) -> Price | None:
    """The list price of a model, with or without the date of its release; None where none is known (a local model)."""
    return _table().get(model) or _table().get(_DATE.sub("", model))


def cost_micro_usd(usage: TokenUsage, price: Price | None) -> int:
    """Millionths of a US dollar, rounded up; 0 without a price."""
    if price is None:
        return 0
    total = (
        usage.input_tokens * price.input_micro_usd_per_million
        + usage.output_tokens * price.output_micro_usd_per_million
    )
    return -(-total // 1_000_000)
