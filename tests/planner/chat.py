"""What an endpoint of the OpenAI chat protocol answers, as it was observed of real ones."""

import json
from typing import Any

from tests.planner.http_stub import Reply

MODEL = "gpt-4o-mini-2024-07-18"

GOOD_PLAN: dict[str, Any] = {
    "steps": [
        {
            "id": "write",
            "title": "Write the greeting",
            "depends_on": [],
            "action": {"kind": "file", "op": "write", "path": "hi.txt", "text": "hi\n"},
            "acceptance": [],
        },
        {
            "id": "show",
            "title": "Show it",
            "depends_on": ["write"],
            "action": {"kind": "command", "pipeline": [["cat", "hi.txt"]], "stdin": None, "output_file": None},
            "acceptance": [],
        },
        {
            "id": "verify",
            "title": "Check it",
            "depends_on": ["show"],
            "action": {
                "kind": "check",
                "criteria": [{"kind": "equals", "text": "hi", "path": "hi.txt", "step": None}],
            },
            "acceptance": [],
        },
    ],
    "confidence": 90,
}


def changed(**changes: Any) -> dict[str, Any]:
    """The good plan with its first step changed."""
    steps = [GOOD_PLAN["steps"][0] | changes, *GOOD_PLAN["steps"][1:]]
    return GOOD_PLAN | {"steps": steps}


def said(
    content: Any,
    *,
    finish: str | None = "stop",
    refusal: str | None = None,
    usage: tuple[int, int] | None = (700, 200),
    **reply: Any,
) -> Reply:
    """A chat completion; a plan is written as JSON."""
    text = content if content is None or isinstance(content, str) else json.dumps(content)
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
    }
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return Reply(body=body, **reply)


def error(status: int, code: str | None = None, message: str = "no", param: str | None = None, **reply: Any) -> Reply:
    """An error as OpenAI words it."""
    return Reply(status, {"error": {"message": message, "type": code, "param": param, "code": code}}, **reply)
