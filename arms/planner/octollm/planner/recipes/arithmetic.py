"""Whole-number arithmetic: `Compute 12 * 7`, `What is the sum of 1 to 100?`

expr(1) does the sum in the sandbox, and the check compares it with what the planner computed by itself.
"""

import re

from msgspec.structs import replace

from octollm.events.carrier import EqualsCriterion, Step
from octollm.planner.recipes.grammar import NUMBER, VERIFY, number, phrase
from octollm.planner.recipes.recipe import Recipe, Unsupported, command, confirmed

_WORDS = (
    (r"multiplied\s+by|times|×|·|x", "*"),
    (r"divided\s+by|over|÷", "/"),
    (r"plus", "+"),
    (r"minus|−", "-"),
    (r"modulo|mod", "%"),
)
_TOKEN = re.compile(r"\d+|[-+*/%()]")
_MOST = 2**63 - 1
_MOST_TOKENS = 100


class _Expression:
    """Sums, products and brackets over 64-bit whole numbers, by recursive descent."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0

    def value(self) -> int:
        """The value of all tokens. Raises Unsupported."""
        result = self._sum()
        if self._next < len(self._tokens):
            raise Unsupported("the calculation can't be read")
        return result

    def _sum(self) -> int:
        result = self._product()
        while operator := self._take("+", "-"):
            other = self._product()
            result = _within(result + other if operator == "+" else result - other)
        return result

    def _product(self) -> int:
        result = self._operand()
        while operator := self._take("*", "/", "%"):
            other = self._operand()
            if operator == "*":
                result = _within(result * other)
                continue
            if other == 0:
                raise Unsupported("it divides by zero")
            if result < 0 or other < 0 or (operator == "/" and result % other):
                raise Unsupported("only divisions of positive numbers without a remainder can be done")
            result = result // other if operator == "/" else result % other
        return result

    def _operand(self) -> int:
        if self._take("("):
            result = self._sum()
            if not self._take(")"):
                raise Unsupported("a bracket is not closed")
            return result
        if self._next < len(self._tokens) and self._tokens[self._next].isdigit():
            self._next += 1
            return _within(number(self._tokens[self._next - 1]))
        raise Unsupported("the calculation can't be read")

    def _take(self, *wanted: str) -> str | None:
        if self._next < len(self._tokens) and self._tokens[self._next] in wanted:
            self._next += 1
            return self._tokens[self._next - 1]
        return None


def _within(value: int) -> int:
    if abs(value) > _MOST:
        raise Unsupported("the numbers get too large: 64 bits at most")
    return value


def _compute(match: re.Match[str]) -> list[Step]:
    text = match["expression"].lower()
    for word, operator in _WORDS:
        text = re.sub(word, operator, text)
    tokens = _TOKEN.findall(text)
    if len(tokens) > _MOST_TOKENS or "".join(tokens) != re.sub(r"\s+", "", text):
        raise Unsupported("the calculation can't be read")
    value = _Expression(tokens).value()
    # expr(1) ends with 1 where the result is 0.
    return confirmed(
        command("compute", f"Compute {' '.join(tokens)}", ["expr", *tokens], exits=0 if value else 1), str(value)
    )


def _sum(match: re.Match[str]) -> list[Step]:
    low, high = number(match["low"]), number(match["high"])
    if low > high or high > 1_000_000:
        raise Unsupported("a range of numbers goes up, to a million at most")
    many, total = high - low + 1, (low + high) * (high - low + 1) // 2
    # Gauss: the mean of the first and the last, times how many there are.
    formula = ["(", str(low), "+", str(high), ")", "*", str(many), "/", "2"]
    count = command("count", f"Count the numbers from {low} to {high}", ["seq", str(low), str(high)], ["wc", "-l"])
    counted = replace(count, acceptance=[EqualsCriterion(text=str(many))])
    add = command("sum", "Add them up", ["expr", *formula], after=["count"], exits=0 if total else 1)
    return [counted, *confirmed(add, str(total))]


_ASK = r"(?:what is|what's|what’s|compute|calculate|evaluate|how much is|work out|find|print|echo|show|tell me|give me)"

RECIPES = (
    Recipe(
        example="What is the sum of 1 to 100?",
        pattern=phrase(
            rf"(?:{_ASK} )?(?:(?:the )?sum of|sum|add(?: up)?) (?:all )?(?:(?:the )?(?:numbers|integers) )?"
            rf"(?:from |between )?(?P<low>{NUMBER}) ?(?:to|through|and|-|–|\.\.) ?(?P<high>{NUMBER}){VERIFY}"
        ),
        build=_sum,
    ),
    Recipe(
        example="Compute 12 * 7",
        pattern=phrase(
            r"(?:what is|what's|what’s|compute|calculate|evaluate|how much is|work out)"
            r" (?P<expression>[(\d]"
            r"(?:[\d()\s+*/%x×·÷−-]|plus|minus|times|multiplied by|divided by|over|modulo|mod)*[\d)])"
            rf"(?: ?=)?{VERIFY}"
        ),
        build=_compute,
    ),
)
