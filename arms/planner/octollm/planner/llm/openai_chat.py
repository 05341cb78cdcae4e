"""Any endpoint that speaks the OpenAI chat protocol: OpenAI, Ollama, vLLM, llama.cpp.

`chat.completions.create`, never the SDK's parse helpers: they lose refusals and cut answers. Endpoints differ in what
they accept; the first refusal of a parameter (400 or 422) teaches the provider the endpoint's dialect.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from octollm.events.carrier import PlanFailureClass, TokenUsage
from octollm.planner.llm.provider import Answer, Finish, Message, ModelError

_CODE = re.compile(r"[\w.-]{1,60}")
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an endpoint accepts."""

    json_schema: bool = True
    token_limit: str = "max_tokens"  # noqa: S105  # a parameter's name
    temperature: bool = True

    def parameters(self, schema: dict[str, Any], max_output_tokens: int) -> dict[str, Any]:
        """The request's parameters besides model and messages."""
        wanted: dict[str, Any] = {self.token_limit: max_output_tokens}
        if self.temperature:
            wanted["temperature"] = 0
        if self.json_schema:
            shape = {"name": "plan", "strict": True, "schema": schema}
            wanted["response_format"] = {"type": "json_schema", "json_schema": shape}
        else:
            wanted["response_format"] = {"type": "json_object"}
        return wanted

    def after_refusal(self, complaint: str) -> "Dialect | None":
        """The dialect to try after the endpoint complained about a parameter; None if it is about something else."""
        if self.token_limit == "max_tokens" and "max_tokens" in complaint:  # noqa: S105
            return replace(self, token_limit="max_completion_tokens")  # noqa: S106
        if self.temperature and "temperature" in complaint:
            return replace(self, temperature=False)
        if self.json_schema and re.search(r"response_format|json_schema|schema|grammar|structured", complaint):
            return replace(self, json_schema=False)
        return None


class OpenAIChat:
    """A provider behind the OpenAI SDK. The planner owns time-outs and retries, so the SDK's are off."""

    def __init__(self, model: str, key: SecretStr, base_url: str | None = None, name: str = "openai") -> None:
        self._name = name
        self._model = model
        self._dialect = Dialect()
        self._client = openai.AsyncOpenAI(api_key=key.get_secret_value(), base_url=base_url, max_retries=0)

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self._model

    async def close(self) -> None:
        """Releases the connections."""
        await self._client.close()

    async def complete(
        self, messages: Sequence[Message], schema: dict[str, Any], max_output_tokens: int, timeout_s: float
    ) -> Answer:
        """One call; up to three more to learn the endpoint's dialect. Raises ModelError."""
        while True:
            dialect = self._dialect
            try:
                completion = await self._client.chat.completions.create(
                    model=self._model,
                    messages=[{"role": message.role, "content": message.content} for message in messages],  # type: ignore[misc]
                    timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s)),
                    **dialect.parameters(schema, max_output_tokens),
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                learnt = dialect.after_refusal(f"{error.param or ''} {error.message}")
                if learnt is None:
                    raise _classified(error) from error
                self._dialect = learnt
            except openai.OpenAIError as error:
                raise _classified(error) from error
            else:
                return _answer(completion, self._model)


def _answer(completion: object, asked: str) -> Answer:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise ModelError(PlanFailureClass.unavailable, "the endpoint's answer is not a chat completion", transient=True)
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        finish = Finish.refused
    elif choice.finish_reason == "stop":
        finish = Finish.complete
    else:
        # `length`, or no reason at all: a text that may have been cut is not a plan.
        finish = Finish.truncated
    usage = None
    if completion.usage is not None:
        usage = TokenUsage(
            input_tokens=completion.usage.prompt_tokens, output_tokens=completion.usage.completion_tokens
        )
    return Answer(text=choice.message.content or "", finish=finish, model=completion.model or asked, usage=usage)


def _classified(error: openai.OpenAIError) -> ModelError:
    """The error as the planner's own: by status and code, without the provider's words."""
    match error:
        case openai.APITimeoutError():
            return ModelError(PlanFailureClass.timeout, "the model did not answer in time", transient=True)
        case openai.APIConnectionError():
            return ModelError(PlanFailureClass.unavailable, "the connection failed or broke off", transient=True)
        case openai.APIStatusError():
            return _by_status(error)
        case _:
            return ModelError(PlanFailureClass.unavailable, f"the call failed ({type(error).__name__})", transient=True)


def _by_status(error: openai.APIStatusError) -> ModelError:
    status, code = error.status_code, _short(error.code) or _short(error.type)
    said = f"HTTP {status}" + (f", {code}" if code else "")
    if status == 402 or "insufficient_quota" in (error.code, error.type):
        return ModelError(PlanFailureClass.quota, f"the account's quota is used up ({said}); check plan and billing")
    if status in (401, 403):
        return ModelError(PlanFailureClass.auth, f"the API key was not accepted ({said}); check OPENAI_API_KEY")
    if status == 429:
        wait = _retry_after(error)
        return ModelError(
            PlanFailureClass.rate_limited, f"too many requests ({said})", transient=True, retry_after_s=wait
        )
    if status in (503, 529):
        wait = _retry_after(error)
        return ModelError(
            PlanFailureClass.overloaded, f"the model is overloaded ({said})", transient=True, retry_after_s=wait
        )
    if status >= 500 or status in (408, 409, 425):
        return ModelError(PlanFailureClass.unavailable, f"the endpoint failed ({said})", transient=True)
    return ModelError(PlanFailureClass.unavailable, f"the endpoint refused the request ({said}); check model and URL")


def _short(code: object) -> str | None:
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _retry_after(error: openai.APIStatusError) -> float | None:
    headers = error.response.headers
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None
