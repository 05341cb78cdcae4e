"""Deadlines, kept by the broker as message schedules (events/README.md, Time): one per task, replaced in place."""

import json
from datetime import datetime

from nats import errors as nats_errors
from nats.aio.client import Client

from octollm.events.gate import Unavailable
from octollm.orchestrator.saga import rfc3339

_TIMEOUT_S = 5.0
_SET_ALREADY = (10071, 10164)
"""The subject has a message: wrong last sequence, on one node and on a replicated stream."""


class TimerNotSet(Unavailable):
    """The broker did not take a deadline; setting it again is safe."""

    def __init__(self, reason: str) -> None:
        super().__init__("timers", reason)


class Timers:
    """Sets deadlines; they come back as `timer.fired.<task_id>` on the stream TIMERS."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, task_id: str, at: datetime, *, only_if_unset: bool = False) -> None:
        """The task's deadline is `at` (whole milliseconds) from now on; one in the past fires at once.

        With `only_if_unset` a deadline that the broker holds already stays as it is.
        """
        moment = rfc3339(at)
        headers = {"Nats-Schedule": f"@at {moment}", "Nats-Schedule-Target": f"timer.fired.{task_id}"}
        if only_if_unset:
            headers["Nats-Expected-Last-Subject-Sequence"] = "0"
        try:
            ack = await self._client.request(f"timer.set.{task_id}.deadline", b"", timeout=_TIMEOUT_S, headers=headers)
        except (nats_errors.TimeoutError, nats_errors.NoRespondersError) as error:
            raise TimerNotSet(f"task {task_id}: the broker did not confirm a deadline at {moment}") from error
        refusal = json.loads(ack.data).get("error")
        if refusal and not (only_if_unset and refusal["err_code"] in _SET_ALREADY):
            raise TimerNotSet(f"task {task_id}: the broker refused a deadline at {moment}: {refusal['description']}")
