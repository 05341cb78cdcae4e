"""HTTP to the REST view and to reflex: JSON in, JSON out, every refusal a Failure.

`http.client` and no proxy: a client library takes longer to import than these requests take.
"""

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from octollm.cli.failure import Exit, Failure

TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Api:
    """One base URL; `bearer` is a key that goes along with every request."""

    def __init__(self, base_url: str, timeout_s: float = TIMEOUT_S, *, bearer: str | None = None) -> None:
        """Raises Failure for what is no http URL."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure.usage(f"{base_url!r} is no http URL", "give one like http://127.0.0.1:8000")
        self.base_url = base_url
        self._parts = parts
        self._timeout_s = timeout_s
        self._credentials = {"authorization": f"Bearer {bearer}"} if bearer else {}

    def get(self, path: str, **query: Any) -> Any:
        """The answer's JSON; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path, None)

    def post(self, path: str, body: Any) -> Any:
        """The answer's JSON."""
        return self._ask("POST", path, json.dumps(body, ensure_ascii=False).encode())

    def _ask(self, method: str, target: str, body: bytes | None) -> Any:
        status, answer = self._exchange(method, target, body)
        try:
            document = json.loads(answer) if answer else None
        except ValueError:
            document = None
        if 200 <= status < 300 and document is not None:
            return document
        raise self._refusal(status, document, f"{method} {self.base_url}{target.partition('?')[0]}")

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        secure = self._parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
        headers = {"accept": "application/json"} | self._credentials
        headers |= {"content-type": "application/json"} if body is not None else {}
        try:
            connection.request(method, self._parts.path.rstrip("/") + target, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            reason = f"no answer within {self._timeout_s:g} s"
            raise Failure.unreachable("OctoLLM", self.base_url, reason) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Failure.unreachable("OctoLLM", self.base_url, reason) from error
        finally:
            connection.close()
        if len(answer) > MAX_ANSWER_BYTES:
            raise Failure(
                f"{self.base_url} answered with more than {MAX_ANSWER_BYTES} bytes", "ask for less", Exit.INFRASTRUCTURE
            )
        return response.status, answer

    @staticmethod
    def _refusal(status: int, document: Any, request: str) -> Failure:
        """A problem (RFC 9457) as a Failure; anything else is not OctoLLM's answer."""
        if not isinstance(document, dict) or not isinstance(document.get("code"), str):
            return Failure(
                f"{request} was answered {status} by something that isn't OctoLLM, or is broken",
                "check the address (octo ps, OCTO_STACK__API_URL), and run `octo doctor`",
                Exit.INFRASTRUCTURE,
            )
        listed = document.get("errors") or []
        errors = tuple((str(item.get("pointer", "")), str(item.get("message", ""))) for item in listed)
        message = str(document.get("detail") or document.get("title") or f"refused with status {status}")
        task_id = document.get("task_id")
        return Failure.of_code(
            document["code"], message, task_id=task_id if isinstance(task_id, str) else None, errors=errors
        )
