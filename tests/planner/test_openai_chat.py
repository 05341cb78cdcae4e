"""The provider against a server that speaks the OpenAI chat protocol, through the real SDK."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from octollm.events.carrier import PlanFailureClass as Class
from octollm.events.carrier import TokenUsage
from octollm.planner.llm import wire
from octollm.planner.llm.openai_chat import Dialect, OpenAIChat
from octollm.planner.llm.provider import Answer, Finish, Message, ModelError
from tests.planner.chat import MODEL, error, said
from tests.planner.http_stub import HttpStub, Reply

KEY = "sk-test-0123456789abcdef"
MESSAGES = [Message("system", "rules"), Message("user", "goal")]


@pytest_asyncio.fixture
async def provider(chat: HttpStub) -> AsyncIterator[OpenAIChat]:
    made = OpenAIChat("gpt-4o-mini", SecretStr(KEY), f"{chat.url}/v1")
    yield made
    await made.close()


async def ask(provider: OpenAIChat, timeout_s: float = 5) -> Answer:
    return await provider.complete(MESSAGES, wire.SCHEMA, 1000, timeout_s)


async def failure(provider: OpenAIChat, timeout_s: float = 5) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(provider, timeout_s)
    assert KEY not in str(caught.value)
    return caught.value


async def test_one_request_says_all(provider: OpenAIChat, chat: HttpStub) -> None:
    chat.script.append(said("{}"))
    assert await ask(provider) == Answer("{}", Finish.complete, MODEL, TokenUsage(input_tokens=700, output_tokens=200))
    (request,) = chat.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "rules"}, {"role": "user", "content": "goal"}],
        "max_tokens": 1000,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "plan", "strict": True, "schema": wire.SCHEMA},
        },
    }


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (said(None, refusal="I can't"), Finish.refused),
        (said("", finish="content_filter"), Finish.refused),
        (said('{"steps": [', finish="length"), Finish.truncated),
        (said("{}", finish=None), Finish.truncated),
        (said("Sure! Here is the plan."), Finish.complete),
    ],
)
async def test_why_the_model_stopped_is_looked_at_first(
    provider: OpenAIChat, chat: HttpStub, reply: Reply, finish: Finish
) -> None:
    chat.script.append(reply)
    assert (await ask(provider)).finish is finish


async def test_a_server_may_report_no_usage(provider: OpenAIChat, chat: HttpStub) -> None:
    chat.script.append(said("{}", usage=None))
    assert (await ask(provider)).usage is None


@pytest.mark.parametrize(
    ("reply", "class_", "transient"),
    [
        (error(429, "rate_limit_exceeded"), Class.rate_limited, True),
        (error(429, "insufficient_quota"), Class.quota, False),
        (error(402), Class.quota, False),
        (error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}"), Class.auth, False),
        (error(403), Class.auth, False),
        (error(503), Class.overloaded, True),
        (error(529, "overloaded_error"), Class.overloaded, True),
        (error(500), Class.unavailable, True),
        (Reply(502, "<html>bad gateway</html>"), Class.unavailable, True),
        (error(404, "model_not_found"), Class.unavailable, False),
        (error(400, "context_length_exceeded"), Class.unavailable, False),
        (Reply(200, "<html>a login page</html>"), Class.unavailable, True),
        (Reply(200, {"choices": []}), Class.unavailable, True),
        (said("{}", cut=0), Class.unavailable, True),
        (said("{}", cut=300), Class.unavailable, True),
        (Reply(200, {"error": "loading"}), Class.unavailable, True),
    ],
)
async def test_every_failure_has_its_class(
    provider: OpenAIChat, chat: HttpStub, reply: Reply, class_: Class, transient: bool
) -> None:
    chat.script.append(reply)
    found = await failure(provider)
    assert (found.class_, found.transient) == (class_, transient)
    assert len(chat.requests) == 1, "the SDK does not retry by itself"


async def test_silence_is_a_time_out(provider: OpenAIChat, chat: HttpStub) -> None:
    chat.script.append(said("{}", after_s=30))
    found = await failure(provider, timeout_s=0.2)
    assert (found.class_, found.transient) == (Class.timeout, True)


async def test_nobody_there() -> None:
    provider = OpenAIChat("m", SecretStr("none"), "http://127.0.0.1:9/v1")
    assert (await failure(provider)).class_ is Class.unavailable
    await provider.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7), ({"retry-after-ms": "250", "retry-after": "7"}, 0.25), ({"retry-after": "soon"}, None)],
)
async def test_the_provider_says_when_to_come_back(
    provider: OpenAIChat, chat: HttpStub, headers: dict[str, str], seconds: float | None
) -> None:
    chat.script.append(error(429, headers=headers))
    assert (await failure(provider)).retry_after_s == seconds


async def test_an_endpoint_teaches_its_dialect_once(provider: OpenAIChat, chat: HttpStub) -> None:
    chat.script += [
        error(400, "unsupported_parameter", "Use 'max_completion_tokens' instead.", "max_tokens"),
        error(400, "unsupported_value", "'temperature' does not support 0", "temperature"),
        error(422, None, "json_schema is not supported", "response_format"),
        said("{}"),
    ]
    assert (await ask(provider)).text == "{}"
    await ask(provider)
    assert len(chat.requests) == 5
    for request in chat.requests[3:]:
        sent = {key: value for key, value in request.body.items() if key not in ("model", "messages")}
        assert sent == {"max_completion_tokens": 1000, "response_format": {"type": "json_object"}}


@pytest.mark.parametrize("complaint", ["messages is too long", "unknown model", ""])
def test_another_complaint_changes_nothing(complaint: str) -> None:
    assert Dialect().after_refusal(complaint) is None


def test_a_dialect_is_learnt_in_a_bounded_number_of_steps() -> None:
    dialect: Any = Dialect()
    steps = 0
    while learnt := dialect.after_refusal("max_tokens temperature response_format"):
        dialect, steps = learnt, steps + 1
    assert steps == 3
