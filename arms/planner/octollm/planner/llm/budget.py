"""A task's budget for model calls: reserved before a call, settled after it."""

from dataclasses import dataclass
from math import floor

from octollm.events.carrier import Budget, Price, TokenUsage
from octollm.planner.llm.pricing import cost_micro_usd

LEAST_OUTPUT_TOKENS = 200
"""No plan fits into less."""

_BYTES_PER_TOKEN = 3
"""A guess on the safe side: English has four and more."""


class BudgetExceeded(Exception):
    """The budget does not allow the next call, or a call used more than was left. The message says which limit."""


def estimate(text: str) -> int:
    """Tokens of a text, rather too many than too few."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


@dataclass(slots=True)
class Ledger:
    """What planning one task has used so far, and what it may use."""

    budget: Budget
    price: Price | None
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def usage(self) -> TokenUsage:
        """Tokens of all calls so far."""
        return TokenUsage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)

    @property
    def cost_micro_usd(self) -> int:
        """Cost of all calls so far."""
        return cost_micro_usd(self.usage, self.price)

    @property
    def _limit_micro_usd(self) -> int:
        return floor(self.budget.max_cost_usd * 1_000_000)

    def reserve(self, prompt_tokens: int, wanted: int) -> int:
        """The output tokens that the next call may use: `wanted` or less. Raises BudgetExceeded."""
        left = self.budget.max_tokens - self.input_tokens - self.output_tokens - prompt_tokens
        if left < LEAST_OUTPUT_TOKENS:
            raise BudgetExceeded(
                f"the token budget of {self.budget.max_tokens} does not allow a call of about {prompt_tokens} tokens"
                f" and an answer; {self.input_tokens + self.output_tokens} are used"
            )
        allowed = min(wanted, left)
        if self.price is not None and self.price.output_micro_usd_per_million > 0:
            before = TokenUsage(input_tokens=self.input_tokens + prompt_tokens, output_tokens=self.output_tokens)
            money = self._limit_micro_usd - cost_micro_usd(before, self.price)
            allowed = min(allowed, money * 1_000_000 // self.price.output_micro_usd_per_million)
            if allowed < LEAST_OUTPUT_TOKENS:
                raise BudgetExceeded(
                    f"the cost budget of {self.budget.max_cost_usd:g} USD does not allow another call;"
                    f" {self.cost_micro_usd} micro-USD are used"
                )
        return allowed

    def settle(self, usage: TokenUsage) -> None:
        """Books a call. Raises BudgetExceeded, the call booked, when it went beyond a limit."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        if self.input_tokens + self.output_tokens > self.budget.max_tokens:
            used = self.input_tokens + self.output_tokens
            raise BudgetExceeded(f"{used} tokens are used; the budget is {self.budget.max_tokens}")
        if self.cost_micro_usd > self._limit_micro_usd:
            raise BudgetExceeded(
                f"{self.cost_micro_usd} micro-USD are used; the budget is {self.budget.max_cost_usd:g} USD"
            )
