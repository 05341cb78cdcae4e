"""Commands through the view: handed to reflex unread, and its answer handed back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from octollm.events.config import PostgresSettings
from octollm.projections import metrics
from octollm.projections.progress import Progress
from octollm.projections.proxy import MAX_BODY_BYTES
from octollm.projections.stream import EventStream
from tests.projections.conftest import Rest, Running, Servers, eventually, serving
from tests.projections.test_rest import TASKS, body

TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"


@dataclass
class Seen:
    """A request as it reached the fake reflex."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeReflex:
    """An HTTP server that notes what it gets and answers what it is told to."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[], Response] = lambda: Response(b"{}", 202, media_type="application/json")
    hold: asyncio.Event | None = None

    async def __call__(self, request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        content = await request.body()
        self.seen.append(Seen(request.method, target, dict(request.headers), content))
        if self.hold:
            await self.hold.wait()
        return self.answer()


@pytest_asyncio.fixture
async def reflex() -> AsyncIterator[FakeReflex]:
    listening = socket.create_server(("127.0.0.1", 0))
    fake = FakeReflex(f"http://127.0.0.1:{listening.getsockname()[1]}")

    async def endpoint(request: Request) -> Response:
        return await fake(request)

    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    serve = asyncio.create_task(server._serve([listening]))
    await eventually(lambda: server.started)
    yield fake
    if fake.hold:
        fake.hold.set()
    server.should_exit = True
    await serve
    listening.close()


@pytest_asyncio.fixture
async def view(reflex: FakeReflex, servers: Servers, postgres: PostgresSettings) -> AsyncIterator[Rest]:
    running = Running(Progress(), EventStream(servers.nats))
    async with serving(running, postgres, reflex.url, reflex_timeout_seconds=1) as rest:
        yield rest


async def test_a_submission_reaches_reflex_as_it_is(view: Rest, reflex: FakeReflex) -> None:
    reflex.answer = lambda: Response(
        b'{"task_id": "x", "seq": 7, "status": "pending"}',
        202,
        {
            "Location": f"{TASKS}/{TASK}",
            "RateLimit-Remaining": "3",
            "Octo-Seq": "7",
            "Set-Cookie": "no=1",
            "Server": "reflex",
        },
        "application/json",
    )
    # Not even JSON: the view doesn't look.
    answer = await view.http.post(
        f"{TASKS}?dry=1",
        content=b"\x00{ goal",
        headers={
            "Authorization": "Bearer k",
            "Content-Type": "application/json",
            "Cookie": "a=b",
            "Idempotency-Key": "i",
        },
    )
    assert (answer.status_code, answer.content) == (202, b'{"task_id": "x", "seq": 7, "status": "pending"}')
    assert answer.headers["location"] == f"{TASKS}/{TASK}"
    assert (answer.headers["ratelimit-remaining"], answer.headers["octo-seq"]) == ("3", "7")
    assert "set-cookie" not in answer.headers
    (seen,) = reflex.seen
    assert (seen.method, seen.target, seen.body) == ("POST", f"{TASKS}?dry=1", b"\x00{ goal")
    assert (seen.headers["authorization"], seen.headers["idempotency-key"]) == ("Bearer k", "i")
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert "cookie" not in seen.headers


@pytest.mark.parametrize("status", [400, 409, 413, 422, 429, 500, 503])
async def test_a_refusal_is_handed_back_as_it_is(view: Rest, reflex: FakeReflex, status: int) -> None:
    content = b'{"type": "urn:octollm:error:SOME"}'
    reflex.answer = lambda: Response(content, status, {"Retry-After": "9"}, "application/problem+json")
    answer = await view.http.post(TASKS, json={"goal": "x"})
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "9"


async def test_a_redirect_is_not_followed(view: Rest, reflex: FakeReflex) -> None:
    reflex.answer = lambda: Response(b"", 307, {"Location": "http://192.0.2.1/"})
    assert (await view.http.post(TASKS, json={})).status_code == 307
    assert len(reflex.seen) == 1


async def test_a_cancel_reaches_reflex(view: Rest, reflex: FakeReflex) -> None:
    answer = await view.http.post(f"{TASKS}/{TASK.upper()}/cancel", json={"reason": "wrong folder"})
    assert answer.status_code == 202
    assert (reflex.seen[0].target, reflex.seen[0].body) == (f"{TASKS}/{TASK}/cancel", b'{"reason":"wrong folder"}')


async def test_a_resume_reaches_reflex(view: Rest, reflex: FakeReflex) -> None:
    answer = await view.http.post(f"{TASKS}/{TASK.upper()}/resume", json={"note": "mended"})
    assert answer.status_code == 202
    assert (reflex.seen[0].target, reflex.seen[0].body) == (f"{TASKS}/{TASK}/resume", b'{"note":"mended"}')


async def test_only_a_task_id_gets_into_the_path(view: Rest, reflex: FakeReflex) -> None:
    for odd in ("x", "..", "%2e%2e%2fadmin", f"{TASK}%00"):
        assert (await view.http.post(f"{TASKS}/{odd}/cancel")).status_code in (404, 405, 422)
    assert reflex.seen == []


async def test_forwarded_addresses_are_kept(view: Rest, reflex: FakeReflex) -> None:
    await view.http.post(TASKS, json={}, headers={"X-Forwarded-For": "198.51.100.7"})
    assert reflex.seen[0].headers["x-forwarded-for"] == "198.51.100.7, 127.0.0.1"


async def test_a_body_of_the_largest_size_passes(view: Rest, reflex: FakeReflex) -> None:
    await view.http.post(TASKS, content=b"x" * MAX_BODY_BYTES)
    assert len(reflex.seen[0].body) == MAX_BODY_BYTES


async def test_a_larger_body_is_413_before_anything_is_sent(view: Rest, reflex: FakeReflex) -> None:
    found = body(await view.http.post(TASKS, content=b"x" * (MAX_BODY_BYTES + 1)), 413)
    assert found["code"] == "PAYLOAD_TOO_LARGE"
    assert reflex.seen == []


async def test_a_larger_body_of_unknown_length_is_413_too(view: Rest, reflex: FakeReflex) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b"x" * 65536

    assert body(await view.http.post(TASKS, content=chunks()), 413)["code"] == "PAYLOAD_TOO_LARGE"
    assert [seen for seen in reflex.seen if seen.body] == []


async def test_reflex_down_is_503(servers: Servers, postgres: PostgresSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    before = metrics.PROXY_ERRORS.labels("ConnectError")._value.get()
    running = Running(Progress(), EventStream(servers.nats))
    async with serving(running, postgres, f"http://127.0.0.1:{port}") as rest:
        for path in (TASKS, f"{TASKS}/{TASK}/cancel"):
            answer = await rest.http.post(path, json={"goal": "x"})
            assert "nothing was submitted" in body(answer, 503)["detail"]
            assert answer.headers["retry-after"] == "1"
    assert metrics.PROXY_ERRORS.labels("ConnectError")._value.get() == before + 2


async def test_no_answer_in_time_says_that_the_outcome_is_unknown(view: Rest, reflex: FakeReflex) -> None:
    reflex.hold = asyncio.Event()
    assert "outcome is unknown" in body(await view.http.post(TASKS, json={"goal": "x"}), 503)["detail"]


async def test_a_proxy_of_the_environment_is_ignored(
    view: Rest, reflex: FakeReflex, monkeypatch: pytest.MonkeyPatch, servers: Servers, postgres: PostgresSettings
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    running = Running(Progress(), EventStream(servers.nats))
    async with serving(running, postgres, reflex.url) as rest:
        answer: httpx.Response = await rest.http.post(TASKS, json={})
    assert answer.status_code == 202
