"""The REST view's resources."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from octollm.events.carrier import ErrorCode, Priority
from octollm.events.errors import OctoError
from octollm.events.log import LogUnavailable
from octollm.projections.openapi import answers, submission
from octollm.projections.problems import NotFound, Unavailable
from octollm.projections.progress import Progress
from octollm.projections.proxy import Reflex
from octollm.projections.queries import BadCursor, Queries, TaskFilter
from octollm.projections.rows import Status
from octollm.projections.stream import EventStream
from octollm.projections.views import (
    Accepted,
    AttemptPage,
    CancelAccepted,
    EventPage,
    PlanView,
    ResumeAccepted,
    TaskPage,
    TaskView,
)

T = TypeVar("T")

_LARGEST = 2**63 - 1
_encoder = msgspec.json.Encoder()


class Json(Response):
    """A response whose body is JSON already."""

    media_type = "application/json"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How new the answer must be: at least `min_seq`, waited for up to `wait` seconds."""

    min_seq: int | None
    deadline: float

    @property
    def left(self) -> float:
        """Seconds that may still be waited."""
        return max(0.0, self.deadline - time.monotonic())


def _freshness(
    min_seq: Annotated[
        int | None, Query(ge=1, le=_LARGEST, description="Answer from a view that holds the log up to this sequence.")
    ] = None,
    wait: Annotated[float, Query(ge=0, le=10, description="How long the view may take to get there, seconds.")] = 2.0,
) -> Freshness:
    return Freshness(min_seq, time.monotonic() + wait)


def _task_id(
    task_id: Annotated[
        str,
        Path(
            pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
            description="The task's id, a UUID.",
            examples=["3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"],
        ),
    ],
) -> str:
    return task_id.lower()


TaskId = Annotated[str, Depends(_task_id)]
Fresh = Annotated[Freshness, Depends(_freshness)]
CursorParameter = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200, description="Most entries on the page.")]
SearchText = Annotated[
    str | None, Query(min_length=1, max_length=200, pattern="^[^\\x00]+$", description="Occurs in the goal.")
]


@dataclass(frozen=True, slots=True)
class View:
    """What the resources are made of."""

    queries: Queries
    progress: Progress
    stream: EventStream
    reflex: Reflex

    async def fresh(self, request: Request, fresh: Freshness) -> None:
        """Waits for `min_seq`; raises Unavailable when the view does not get there in time."""
        if fresh.min_seq is not None:
            await self._reach(request, fresh.min_seq, fresh, None)
        self._stamp(request)

    async def find(
        self, request: Request, task_id: str, fresh: Freshness, query: Callable[[], Awaitable[T | None]]
    ) -> T:
        """The query's answer about a task.

        None counts as "no such task" only once the view holds all that was in the log when this was asked; then it
        raises NotFound, and Unavailable when that can't be waited for: a task that exists is never called unknown.
        """
        await self.fresh(request, fresh)
        if (found := await query()) is not None:
            return found
        try:
            log = await self.stream.state()
        except LogUnavailable as error:
            raise Unavailable(
                f"task {task_id} is not in the view, and whether it is in the log can't be said: {error}",
                task_id,
                self.progress.seq,
            ) from error
        if self.progress.log not in (None, log.created):
            raise Unavailable("the log was made anew, the view is of the one before; see /ready", task_id)
        await self._reach(request, log.last_seq, fresh, task_id)
        self._stamp(request)
        if (found := await query()) is not None:
            return found
        raise NotFound(
            f"no task {task_id}; the log was looked through up to sequence {log.last_seq}",
            task_id,
            request.state.projected_seq,
        )

    async def _reach(self, request: Request, seq: int, fresh: Freshness, task_id: str | None) -> None:
        if self.progress.foreign:
            raise Unavailable(f"the view is not of this log: {self.progress.trouble}", task_id)
        if not await self.progress.reach(seq, fresh.left):
            self._stamp(request)
            reason = self.progress.trouble or f"it is {self.progress.lag_events} events behind the log"
            raise Unavailable(
                f"the view has not reached sequence {seq} yet, it stands at {self.progress.seq}: {reason}",
                task_id,
                request.state.projected_seq,
            )

    def _stamp(self, request: Request) -> None:
        # Taken before the query: what is then read is at least as new.
        request.state.projected_seq = self.progress.seq


def router(view: View) -> APIRouter:
    """The resources under /api/v1/tasks."""
    routes = APIRouter(prefix="/api/v1/tasks", tags=["tasks"], default_response_class=Json)

    @routes.post(
        "",
        summary="Submit a task",
        status_code=202,
        openapi_extra=submission(),
        responses=answers(Accepted, 202, 409, 413, 422, 429, 503),
    )
    async def submit(request: Request) -> Response:
        """Handed to reflex, which screens it and puts it on record; its answer is returned as it is."""
        return await view.reflex.hand_over(request, "/api/v1/tasks")

    @routes.post(
        "/{task_id}/cancel",
        summary="Cancel a task",
        status_code=202,
        responses=answers(CancelAccepted, 202, 401, 403, 409, 413, 422, 429, 503),
    )
    async def cancel(request: Request, task_id: TaskId) -> Response:
        """Handed to reflex, which authorises it; its answer is returned as it is."""
        return await view.reflex.hand_over(request, f"/api/v1/tasks/{task_id}/cancel")

    @routes.post(
        "/{task_id}/resume",
        summary="Resume a task that stands still",
        status_code=202,
        responses=answers(ResumeAccepted, 202, 401, 403, 409, 413, 422, 429, 503),
    )
    async def resume(request: Request, task_id: TaskId) -> Response:
        """Handed to reflex, which authorises it; its answer is returned as it is."""
        return await view.reflex.hand_over(request, f"/api/v1/tasks/{task_id}/resume")

    @routes.get("", summary="List tasks, newest first", responses=answers(TaskPage, 200, 422, 503))
    async def tasks(
        request: Request,
        fresh: Fresh,
        status: Annotated[list[Status] | None, Query(max_length=6, description="Any of these.")] = None,
        priority: Annotated[list[Priority] | None, Query(max_length=4, description="Any of these.")] = None,
        q: SearchText = None,
        cursor: CursorParameter = None,
        limit: Limit = 50,
    ) -> Response:
        """A cursor stays valid for ever: pages go by the place in the log, which never changes."""
        await view.fresh(request, fresh)
        wanted = TaskFilter(statuses=status or (), priorities=priority or (), text=q)
        return _json(await _paged(view.queries.tasks(wanted, cursor, limit)))

    @routes.get("/{task_id}", summary="Show a task", responses=answers(TaskView, 200, 404, 422, 503))
    async def task(request: Request, task_id: TaskId, fresh: Fresh) -> Response:
        """The fold of the task's events. `min_seq` with the sequence that a submission gave reads your own write."""
        return _json(await view.find(request, task_id, fresh, lambda: view.queries.task(task_id)))

    @routes.get(
        "/{task_id}/steps", summary="List attempts at steps", responses=answers(AttemptPage, 200, 404, 422, 503)
    )
    async def steps(
        request: Request, task_id: TaskId, fresh: Fresh, cursor: CursorParameter = None, limit: Limit = 50
    ) -> Response:
        """Every attempt with its action, exit code, output and cost, in the order in which they began."""
        await view.find(request, task_id, fresh, lambda: view.queries.exists(task_id))
        return _json(await _paged(view.queries.attempts(task_id, cursor, limit)))

    @routes.get("/{task_id}/events", summary="List events", responses=answers(EventPage, 200, 404, 422, 503))
    async def events(
        request: Request, task_id: TaskId, fresh: Fresh, cursor: CursorParameter = None, limit: Limit = 50
    ) -> Response:
        """The task's part of the log, in order; a page ends early when its payloads pass 4 MiB."""
        await view.find(request, task_id, fresh, lambda: view.queries.exists(task_id))
        return _json(await _paged(view.queries.events(task_id, cursor, limit)))

    @routes.get("/{task_id}/plan", summary="Show the plan", responses=answers(PlanView, 200, 404, 422, 503))
    async def plan(
        request: Request,
        task_id: TaskId,
        fresh: Fresh,
        version: Annotated[int | None, Query(ge=1, le=100, description="The newest by default.")] = None,
    ) -> Response:
        """The plan in force, or an earlier version of it."""
        await view.find(request, task_id, fresh, lambda: view.queries.exists(task_id))
        found = await view.queries.plan(task_id, version)
        if found is None:
            what = "no plan yet" if version is None else f"no plan version {version}"
            raise NotFound(f"task {task_id} has {what}", task_id, request.state.projected_seq)
        return _json(found)

    return routes


async def _paged(page: Awaitable[T]) -> T:
    try:
        return await page
    except BadCursor:
        broken = (("/query/cursor", "is not a cursor that a page gave"),)
        raise OctoError(ErrorCode.INVALID_REQUEST, "the request is wrong at /query/cursor", errors=broken) from None


def _json(value: msgspec.Struct) -> Json:
    return Json(_encoder.encode(value))
