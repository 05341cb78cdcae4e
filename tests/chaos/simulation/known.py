"""What the simulation found in the orchestrator and is not mended there yet: the sweep runs on this until it is."""

from collections.abc import Callable

from octollm.orchestrator.runner import Runner


class CorrectedRunner(Runner):
    """Looks at every open task after a start and a reconnect: a crash may leave neither schedule nor memory."""

    open_tasks: Callable[[], list[str]]
    """The tasks that are open by the log, wherever a reader of it gets them from."""

    async def start(self) -> None:
        """Looks at every open task."""
        await self.rearm()

    async def rearm(self) -> None:
        # Not what is in memory: that lacks what was evicted, and what a handler has in hand with a timer now gone.
        for task_id in self.open_tasks():
            await self.resume(task_id)
