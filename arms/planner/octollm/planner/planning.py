"""Which planner plans a task: the caller's own plan first, then the configured model, else the offline recipes."""

from datetime import datetime

from msgspec import UNSET

from octollm.events.carrier import TaskReceived
from octollm.planner import caller, offline
from octollm.planner.llm.planner import ModelPlanner
from octollm.planner.outcome import Outcome


class Planning:
    """Plans tasks; without a model, from recipes."""

    def __init__(self, model: ModelPlanner | None = None) -> None:
        self._model = model

    async def plan(self, task_id: str, task: TaskReceived, received_at: datetime) -> Outcome:
        """The plan of a task, or why there is none. Raises ScreenUnavailable where a model wrote it."""
        if task.plan is not UNSET:
            return caller.plan(task, task.plan)
        if self._model is None:
            return offline.plan(task)
        return await self._model.plan(task_id, task, received_at)
