"""What a provider of language models is to the planner."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from octollm.events.carrier import PlanFailureClass, TokenUsage


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Finish(Enum):
    """Why a model stopped."""

    complete = "complete"
    truncated = "truncated"
    refused = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said. `usage` is None where the provider reports none."""

    text: str
    finish: Finish
    model: str
    usage: TokenUsage | None


class ModelError(Exception):
    """A model gave no usable answer. `transient`: the same call may succeed later, after `retry_after_s` if given.

    The message holds nothing that the provider or the model wrote, except short codes: it goes on record and into logs.
    """

    def __init__(
        self,
        class_: PlanFailureClass,
        message: str,
        *,
        transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.class_ = class_
        self.transient = transient
        self.retry_after_s = retry_after_s


class Provider(Protocol):
    """One endpoint and one model."""

    @property
    def name(self) -> str:
        """As configured; recorded with every plan."""
        ...

    @property
    def model(self) -> str:
        """The model that is asked."""
        ...

    async def complete(
        self, messages: Sequence[Message], schema: dict[str, Any], max_output_tokens: int, timeout_s: float
    ) -> Answer:
        """One call, without retries; the answer should be JSON that follows `schema`. Raises ModelError."""
        ...

    async def close(self) -> None:
        """Releases the connections."""
        ...
