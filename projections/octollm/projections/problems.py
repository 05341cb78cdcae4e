"""Every error of the HTTP interface as problem+json (RFC 9457), with a code of the one list."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from octollm.events.carrier import ErrorCode
from octollm.events.errors import OctoError, problem
from octollm.projections.database import DatabaseLost

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}

_log = structlog.get_logger()


class Unavailable(OctoError):
    """The view can't answer truthfully now, or reflex can't be reached: 503, and trying again may help."""

    def __init__(self, message: str, task_id: str | None = None, projected_seq: int | None = None) -> None:
        super().__init__(ErrorCode.ARM_UNAVAILABLE, message, task_id)
        self.projected_seq = projected_seq


class NotFound(OctoError):
    """The log as far as `projected_seq` holds no such thing."""

    def __init__(self, message: str, task_id: str, projected_seq: int) -> None:
        super().__init__(ErrorCode.NOT_FOUND, message, task_id)
        self.projected_seq = projected_seq


def answer(error: OctoError, status: int | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response for an error; `status` where HTTP has a finer one than the code (404, 405 …)."""
    body: dict[str, Any] = problem(error)
    if status is not None:
        body["status"] = status
    if isinstance(error, Unavailable | NotFound) and error.projected_seq is not None:
        body["projected_seq"] = error.projected_seq
    if isinstance(error, Unavailable):
        headers = (headers or {}) | RETRY_AFTER
    return JSONResponse(body, status_code=body["status"], headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes problems of our own errors, of FastAPI's and Starlette's, of a lost database and of defects."""

    @app.exception_handler(OctoError)
    async def coded(_: Request, error: OctoError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # The value itself is not repeated: it may be anything.
        broken = tuple(("".join(f"/{part}" for part in item["loc"]), str(item["msg"])) for item in error.errors())
        places = ", ".join(pointer for pointer, _ in broken)
        return answer(OctoError(ErrorCode.INVALID_REQUEST, f"the request is wrong at {places}", errors=broken))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        if error.status_code == HTTPStatus.NOT_FOUND:
            return answer(
                OctoError(ErrorCode.NOT_FOUND, f"{where}: there is nothing here; /openapi.json lists what is")
            )
        reason = HTTPStatus(error.status_code).phrase.lower()
        headers = dict(error.headers) if error.headers else None
        return answer(OctoError(ErrorCode.INVALID_REQUEST, f"{where}: {reason}"), error.status_code, headers)

    @app.exception_handler(DatabaseLost)
    async def unreadable(request: Request, error: DatabaseLost) -> JSONResponse:
        _log.warning("the view can't be read", error=str(error), path=request.url.path)
        return answer(Unavailable(f"{error}; the log is not affected, try again"))

    @app.exception_handler(Exception)
    async def defect(request: Request, _: Exception) -> JSONResponse:
        return answer(OctoError(ErrorCode.INTERNAL_ERROR, f"{request.method} {request.url.path} failed; see the log"))
