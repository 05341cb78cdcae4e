"""What every Python service has: logs, health, metrics, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

Check = Callable[[], Awaitable[None]]
"""Returns when a dependency is fine, raises with the reason when it is not."""

Detail = Callable[[], Awaitable[Any]]
"""Returns what `/ready` tells besides, as JSON has it; it never makes a service unready."""

_CHECK_TIMEOUT_S = 2.0
_log = structlog.get_logger()


def configure_logging(service: str) -> None:
    """JSON lines on stdout; OCTO_LOG sets the level (debug, info, warning, error)."""
    level = logging.getLevelNamesMapping().get(os.environ.get("OCTO_LOG", "info").upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)


def probe_router(service: str, checks: Mapping[str, Check], details: Mapping[str, Detail]) -> APIRouter:
    """/health (alive), /ready (each dependency by name, 503 when one fails; details) and /metrics."""
    router = APIRouter(tags=["probes"])

    @router.get("/health", summary="The process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok", "service": service}

    @router.get("/ready", summary="The dependencies answer")
    async def ready() -> JSONResponse:
        async def probe(check: Check) -> str:
            try:
                await asyncio.wait_for(check(), _CHECK_TIMEOUT_S)
            except TimeoutError:
                return f"no answer within {_CHECK_TIMEOUT_S:g} s"
            except Exception as error:
                return str(error) or type(error).__name__
            return "ok"

        async def tell(detail: Detail) -> Any:
            try:
                return await asyncio.wait_for(detail(), _CHECK_TIMEOUT_S)
            except TimeoutError:
                return f"no answer within {_CHECK_TIMEOUT_S:g} s"

        answers, told = await asyncio.gather(
            asyncio.gather(*map(probe, checks.values())), asyncio.gather(*map(tell, details.values()))
        )
        states = dict(zip(checks, answers, strict=True))
        failing = sorted(name for name, state in states.items() if state != "ok")
        body = {
            "status": "unavailable" if failing else "ready",
            "service": service,
            "failing": failing,
            "checks": states,
            "details": dict(zip(details, told, strict=True)),
        }
        return JSONResponse(body, status_code=503 if failing else 200)

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router


class Service:
    """A service's HTTP side and its life: `run` serves until the work ends or SIGTERM/SIGINT asks for the end."""

    def __init__(
        self,
        name: str,
        port: int,
        checks: Mapping[str, Check],
        host: str = "127.0.0.1",
        app: FastAPI | None = None,
        drain_s: float = 5.0,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self._drain_s = drain_s
        application = app or FastAPI(title=f"OctoLLM {name}", docs_url=None, redoc_url=None, openapi_url=None)
        application.include_router(probe_router(name, checks, details or {}))
        self._server = _Server(
            uvicorn.Config(
                application,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=3,
                lifespan="off",
            )
        )

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Serves HTTP beside `work`, which should end soon after `stopping` is set; else it is cancelled.

        An exception of `work` ends the service and is raised again.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        serving = asyncio.create_task(self._server.serve())
        working = asyncio.create_task(work)
        asked = asyncio.create_task(self.stopping.wait())
        _log.info("started", service=self.name)
        try:
            await asyncio.wait({serving, working, asked}, return_when=asyncio.FIRST_COMPLETED)
            self.stopping.set()
            await asyncio.wait({working}, timeout=self._drain_s)
            if not working.done():
                _log.warning("drain time is over; work is cancelled", service=self.name)
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working
        finally:
            self._server.should_exit = True
            asked.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            _log.info("stopped", service=self.name)
        if working.done() and not working.cancelled() and (error := working.exception()):
            raise error
        if serving.done() and (error := serving.exception()):
            raise error


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the service has one place for signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
