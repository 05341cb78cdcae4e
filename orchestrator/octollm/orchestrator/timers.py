"""Deadlines, kept by the broker as message schedules (events/README.md, Time): one per task, replaced in place."""

import json
from datetime import datetime

from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.orchestrator.saga import rfc3339

_TIMEOUT_S = 5.0


class TimerNotSet(Exception):
    """The broker did not take a deadline; setting it again is safe."""


class Timers:
    """Sets deadlines; they come back as `timer.fired.<task_id>` on the stream TIMERS."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, task_id: str, at: datetime) -> None:
        """The task's deadline is `at` (whole milliseconds) from now on; one in the past fires at once."""
        moment = rfc3339(at)
        headers = {"Nats-Schedule": f"@at {moment}", "Nats-Schedule-Target": f"timer.fired.{task_id}"}
        try:
            ack = await self._client.request(f"timer.set.{task_id}.deadline", b"", timeout=_TIMEOUT_S, headers=headers)
        except (nats_errors.TimeoutError, nats_errors.NoRespondersError) as error:
            raise TimerNotSet(f"task {task_id}: the broker did not confirm a deadline at {moment}") from error
        if refusal := json.loads(ack.data).get("error"):
            raise TimerNotSet(f"task {task_id}: the broker refused a deadline at {moment}: {refusal['description']}")
