"""The command `octo` in this process, and a server on loopback that answers as it is told."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from octollm.cli.main import app


@dataclass
class FakeServer:
    """Answers by method and path; what isn't told is 404.

    `requests` holds (method, path, query, JSON body), `credentials` the Authorization header of each.
    """

    url: str = ""
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, list[str]], Any]] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)

    def tell(self, method: str, path: str, status: int, body: Any) -> None:
        """From now on: bytes as they are, anything else as JSON."""
        self.answers[method, path] = status, body

    def refuse(self, method: str, path: str, status: int, code: str, detail: str, **more: Any) -> None:
        """A problem (RFC 9457)."""
        self.tell(method, path, status, {"title": code, "status": status, "detail": detail, "code": code, **more})


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._answer("POST", json.loads(body))

        def _answer(self, method: str, body: Any) -> None:
            parts = urlsplit(self.path)
            fake.credentials.append(self.headers["authorization"])
            fake.requests.append((method, parts.path, parse_qs(parts.query), body))
            status, answer = fake.answers.get((method, parts.path), (404, b"nothing here"))
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield fake
    http.shutdown()
    thread.join()
    http.server_close()


class Octo(Protocol):
    def __call__(self, *arguments: str, stdin: str | None = None, **environment: str) -> Result: ...


@pytest.fixture
def octo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Octo:
    """`octo` in an empty directory, without the configuration of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("OCTO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env=environment, catch_exceptions=False)

    return run


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on and nobody else is given while the test runs."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
