"""Screens the texts that a model wrote before they go on record, by reflex's HTTP endpoint.

The log holds no personal data that the screen can find, and a model may invent or repeat some. Fails closed: without an
answer from reflex nothing that a model wrote is appended.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from octollm.events.carrier import PlanFailed, Step, TaskPlanned
from octollm.events.gate import Unavailable
from octollm.planner import metrics
from octollm.planner.outcome import Outcome

_TIMEOUT_S = 5.0
_AT_ONCE = 8

# Not prose but vocabulary of the contract: ids and enumerations, bounded by its schema.
_VOCABULARY = frozenset({"id", "arm", "kind", "op", "effect", "mode", "depends_on", "step"})

T = TypeVar("T")


class ScreenUnavailable(Unavailable):
    """Reflex gave no verdict, so a plan can't go on record yet."""

    def __init__(self, reason: str) -> None:
        super().__init__("reflex", reason)


class Screen:
    """A client of reflex's `process` endpoint."""

    def __init__(self, reflex_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=reflex_url, timeout=_TIMEOUT_S, trust_env=False)
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.aclose()

    async def ready(self) -> None:
        """Returns when reflex answers; raises ScreenUnavailable."""
        try:
            (await self._client.get("/health")).raise_for_status()
        except httpx.HTTPError as error:
            raise ScreenUnavailable(f"it does not answer: {type(error).__name__}") from error

    async def clean(self, outcome: Outcome) -> Outcome:
        """The outcome with personal data in its texts replaced. Raises ScreenUnavailable."""
        match outcome:
            case TaskPlanned():
                steps = msgspec.convert(await self._clean(msgspec.to_builtins(outcome.steps)), list[Step])
                return msgspec.structs.replace(outcome, steps=steps)
            case PlanFailed():
                return msgspec.structs.replace(outcome, message=await self._clean(outcome.message))

    async def _clean(self, data: T) -> T:
        texts = list(dict.fromkeys(_texts(data)))
        screened = dict(zip(texts, await asyncio.gather(*map(self._redacted, texts)), strict=True))
        cleaned: T = _replaced(data, screened)
        return cleaned

    async def _redacted(self, text: str) -> str:
        if not text.strip():
            return text
        try:
            async with self._free:
                response = await self._client.post("/api/v1/reflex/process", json={"text": text, "role": "plan"})
            redacted = response.raise_for_status().json()["redacted"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ScreenUnavailable(f"it gave no verdict on a plan's text: {type(error).__name__}") from error
        if not isinstance(redacted, str):
            raise ScreenUnavailable("its verdict on a plan's text has no redacted text")
        metrics.SCREENED.labels("clean" if redacted == text else "redacted").inc()
        return redacted


def _texts(node: Any) -> Iterator[str]:
    """Every free text in a JSON value."""
    match node:
        case str():
            yield node
        case list():
            for item in node:
                yield from _texts(item)
        case dict():
            for key, value in node.items():
                if key not in _VOCABULARY:
                    yield from _texts(value)


def _replaced(node: Any, texts: Mapping[str, str]) -> Any:
    """The JSON value with every free text as `texts` has it."""
    match node:
        case str():
            return texts[node]
        case list():
            return [_replaced(item, texts) for item in node]
        case dict():
            return {key: value if key in _VOCABULARY else _replaced(value, texts) for key, value in node.items()}
        case _:
            return node
