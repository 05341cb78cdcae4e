"""The HTTP application: resources, problems, metrics, and the header that says how new an answer is."""

import time
from typing import Any

import asyncpg
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octollm.projections import metrics, openapi, problems
from octollm.projections.progress import Progress
from octollm.projections.routes import View, router

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
DESCRIPTION = """
A view of the event log: what it answers is the fold of the events, and can be dropped and rebuilt.
Commands (`POST`) are handed to reflex, the way in. Errors are `application/problem+json` (RFC 9457).
"""


def create_app(view: View) -> FastAPI:
    """The application, without the probes that the service adds."""
    app = FastAPI(title="OctoLLM", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(router(view))
    app.add_middleware(Observed, progress=view.progress)
    problems.install(app)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            plain = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            app.openapi_schema = openapi.complete(plain)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


class Observed:
    """Counts requests by route template and status, and stamps `Octo-Projected-Seq` on every answer."""

    def __init__(self, app: ASGIApp, progress: Progress) -> None:
        self._app = app
        self._progress = progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and watches the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        state = scope.setdefault("state", {})
        state["projected_seq"] = self._progress.seq

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"octo-projected-seq", str(state["projected_seq"]).encode()))
                metrics.REQUESTS.labels(method, _route(scope), message["status"]).inc()
                metrics.REQUEST_SECONDS.labels(_route(scope)).observe(time.monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            # A defect: its answer is made outside of this middleware.
            metrics.REQUESTS.labels(method, _route(scope), 500).inc()
            raise


def _route(scope: Scope) -> str:
    """The route's template, so that ids make no series."""
    return getattr(scope.get("route"), "path", "unmatched")


def watch(progress: Progress, pool: asyncpg.Pool) -> None:
    """Points the gauges at what they show."""
    metrics.CHECKPOINT.set_function(lambda: progress.seq)
    metrics.STREAM_END.set_function(lambda: progress.end)
    metrics.LAG_EVENTS.set_function(lambda: progress.lag_events)
    metrics.LAG_SECONDS.set_function(lambda: progress.lag_seconds)
    metrics.POOL_SIZE.labels("idle").set_function(pool.get_idle_size)
    metrics.POOL_SIZE.labels("used").set_function(lambda: pool.get_size() - pool.get_idle_size())
