"""Commands that reach the view are handed to reflex unread: it alone decides on them."""

from collections.abc import AsyncIterator

import httpx
import structlog
from fastapi import Request, Response

from octollm.events.carrier import ErrorCode
from octollm.events.errors import OctoError
from octollm.projections import metrics
from octollm.projections.problems import Unavailable

MAX_BODY_BYTES = 1024 * 1024

_REQUEST_HEADERS = (
    "accept",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
)
_RESPONSE_HEADERS = ("content-type", "location", "retry-after", "www-authenticate", "x-request-id")
_RESPONSE_PREFIXES = ("octo-", "ratelimit-", "x-ratelimit-")

_log = structlog.get_logger()


class _TooLarge(Exception):
    """The body passed its limit while it was sent on."""


class Reflex:
    """Reflex's HTTP interface as the view uses it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # No proxy from the environment, no redirect followed: a command goes to reflex or nowhere.
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout_s, connect=2.0),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=2.0),
            trust_env=False,
        )

    async def hand_over(self, request: Request, path: str) -> Response:
        """Reflex's answer to the request: status, body and the headers that concern the client.

        Raises PAYLOAD_TOO_LARGE for a body over 1 MiB, Unavailable when reflex gives no answer.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        body = _bounded(request) if declared or "transfer-encoding" in request.headers else None
        if request.client is not None:
            route = request.headers.get("x-forwarded-for")
            headers["x-forwarded-for"] = f"{route}, {request.client.host}" if route else request.client.host
        try:
            answer = await self._client.request(
                request.method, path, params=request.url.query or None, headers=headers, content=body
            )
        except _TooLarge:
            raise _too_large() from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _unanswered(error, "reflex can't be reached, so nothing was submitted; try again") from error
        except httpx.HTTPError as error:
            what = "reflex gave no answer, so the outcome is unknown; with the same task_id, trying again is harmless"
            raise _unanswered(error, what) from error
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name in _RESPONSE_HEADERS or name.startswith(_RESPONSE_PREFIXES)
        }
        return Response(answer.content, answer.status_code, kept)

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()


async def _bounded(request: Request) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _TooLarge
        yield chunk


def _too_large() -> OctoError:
    metrics.PROXY_ERRORS.labels("too_large").inc()
    return OctoError(
        ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes; nothing was submitted"
    )


def _unanswered(error: httpx.HTTPError, what: str) -> Unavailable:
    cause = type(error).__name__
    metrics.PROXY_ERRORS.labels(cause).inc()
    _log.warning("reflex gave no answer", error=cause)
    return Unavailable(what)
