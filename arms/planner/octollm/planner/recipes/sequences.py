"""Well-known numbers: `Write the first 10 Fibonacci numbers to fib.txt and verify the file`, `First 5 primes`.

The executor runs no interpreter, so the planner computes the numbers; the plan writes them and checks what is there.
"""

import re
from collections.abc import Callable, Iterator
from itertools import count, islice

from octollm.events.carrier import Step
from octollm.planner.recipes.grammar import INTO, NUMBER, VERIFY, number, phrase, workspace_path
from octollm.planner.recipes.recipe import (
    Recipe,
    Unsupported,
    check,
    command,
    confirmed,
    holds,
    printed,
    write,
)


def fibonacci() -> Iterator[int]:
    """0, 1, 1, 2, 3, 5 …"""
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def primes() -> Iterator[int]:
    """2, 3, 5, 7, 11 …"""
    found: list[int] = []
    for candidate in count(2):
        if all(candidate % prime for prime in found if prime * prime <= candidate):
            found.append(candidate)
            yield candidate


def squares() -> Iterator[int]:
    """1, 4, 9, 16 …"""
    return (n * n for n in count(1))


# Name → what to call them, the numbers, how many at most (so that the result can be verified).
_FAMILIES: dict[str, tuple[str, Callable[[], Iterator[int]], int]] = {
    "fibonacci": ("Fibonacci numbers", fibonacci, 90),
    "prime": ("prime numbers", primes, 500),
    "square": ("square numbers", squares, 500),
    "even": ("even numbers from 2", lambda: count(2, 2), 500),
    "odd": ("odd numbers from 1", lambda: count(1, 2), 500),
}

_FAMILY = r"(?P<family>fibonacci|prime|square|even|odd)(?:s| numbers?| series| sequence)*"
_DO = (
    r"(?:(?:(?:write|save|put|store|compute|calculate|print|list|show|generate|find|output|display|give|create|produce"
    r"|echo|what are)(?: (?:me|out|down))?) )?"
)
_THEN = r"(?:,? (?:and then|and|then) (?:write|save|put|store)(?: (?:them|it|the results?|the numbers))?)?"


def _first(match: re.Match[str]) -> list[Step]:
    name, numbers, most = _FAMILIES[match["family"].lower()]
    many = number(match["many"])
    if not 1 <= many <= most:
        raise Unsupported(f"{name}: from 1 to {most} of them, not {match['many']}")
    return _plan(f"first {many} {name}", [str(n) for n in islice(numbers(), many)], match["path"])


def _range(match: re.Match[str]) -> list[Step]:
    low, high = number(match["low"]), number(match["high"])
    if low > high or high - low >= 1000:
        raise Unsupported("a range of numbers goes up and has 1000 of them at most")
    return _plan(f"numbers from {low} to {high}", [str(n) for n in range(low, high + 1)], match["path"])


def _plan(what: str, numbers: list[str], into: str | None) -> list[Step]:
    text = "\n".join(numbers) + "\n"
    if into is None:
        return confirmed(command("numbers", f"Print the {what}", ["cat"], stdin=text), text)
    path = workspace_path(into)
    return [
        write("write", f"Write the {what} to {path}", path, text),
        command("count", "Count the lines", ["cat", path], ["wc", "-l"], after=["write"]),
        command("show", f"Read {path} back", ["cat", path], after=["write"]),
        check(
            "verify",
            f"Check what {path} holds",
            *holds(path, text),
            printed("count", str(len(numbers))),
            after=["count", "show"],
        ),
    ]


RECIPES = (
    Recipe(
        example="Write the first 10 Fibonacci numbers to fib.txt and verify the file",
        pattern=phrase(rf"{_DO}(?:the )?first (?P<many>{NUMBER}) {_FAMILY}(?:{_THEN} {INTO})?{VERIFY}"),
        build=_first,
    ),
    Recipe(
        example="Write the numbers from 1 to 10 to numbers.txt",
        pattern=phrase(
            rf"{_DO}(?:all )?(?:the )?(?:numbers|integers) (?:from|between) (?P<low>{NUMBER}) (?:to|through|and)"
            rf" (?P<high>{NUMBER})(?:{_THEN} {INTO})?{VERIFY}"
        ),
        build=_range,
    ),
)
