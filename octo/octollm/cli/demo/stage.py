"""What a scenario acts on: a running stack, the ways into it, and the log as the only witness."""

import asyncio
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octollm.cli.api import Api
from octollm.cli.failure import Failure
from octollm.cli.task_record import TASKS
from octollm.events.bus import Client
from octollm.events.envelope import Event
from octollm.events.log import Log

PATIENCE_S = 10.0
"""How long a scenario waits beyond its task's own time."""


class Differs(Exception):
    """What is on record is not what the scenario expects."""


def expect(holds: bool, expected: str, found: object) -> None:
    """Raises Differs unless it holds."""
    if not holds:
        raise Differs(f"expected {expected}; found {found}")


@dataclass(slots=True)
class Stage:
    """One scenario's view of the stack; `said` collects what it tells.

    `budget_s`: `max_time_seconds` of every task, so that one that nobody works on ends soon.
    """

    client: Client
    log: Log
    api_url: str
    nats_url: str
    nkey_file: Path | None
    data_dir: Path
    services: Mapping[str, str]
    budget_s: int
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A line of the account."""
        self.said.append(text)

    def task(self, goal: str, **more: Any) -> dict[str, Any]:
        """A submission with an id of its own and the demo's small budget."""
        budget = {"max_time_seconds": self.budget_s, "max_retries": 0}
        return {"task_id": str(uuid.uuid4()), "goal": goal, "budget": budget} | more

    async def post(self, submission: dict[str, Any]) -> str:
        """Submits over HTTP, through the REST view; the task's id. Raises Failure as the API refuses."""
        accepted = await asyncio.to_thread(Api(self.api_url).post, TASKS, submission)
        self.say(f"POST {TASKS} → 202, on record at sequence {accepted['seq']}")
        return str(accepted["task_id"])

    async def refused(self, submission: dict[str, Any]) -> Failure:
        """Submits over HTTP and gives the refusal; raises Differs when it is accepted."""
        try:
            accepted = await asyncio.to_thread(Api(self.api_url).post, TASKS, submission)
        except Failure as failure:
            self.say(f"POST {TASKS} → {failure.code}: {failure.message}")
            return failure
        raise Differs(f"expected a refusal; found it accepted as task {accepted['task_id']}")

    async def octo(self, *arguments: str) -> tuple[int, str]:
        """Runs the command `octo` in a process of its own: its exit code and standard output."""
        flags = ("--api", self.api_url, "--nats", self.nats_url)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
        if self.nkey_file:
            environment["OCTO_NATS__NKEY_FILE"] = str(self.nkey_file)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "octollm.cli.main", *arguments, *flags),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), self.budget_s + PATIENCE_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            self.say(f"octo {arguments[0]} ended with {process.returncode}: {err.decode(errors='replace').strip()}")
        return process.returncode or 0, out.decode(errors="replace")

    async def history(self, task_id: str) -> list[Event]:
        """Every event of a task, its chain checked, once it has ended; raises Differs when it doesn't in time."""
        loop = asyncio.get_running_loop()
        patience = self.budget_s + PATIENCE_S
        deadline = loop.time() + patience
        while True:
            before = await self.log.last_seq()
            events = await self.log.read(task_id)
            if events and events[-1].terminal:
                return events
            try:
                async with asyncio.timeout_at(deadline):
                    # Anything new about the task: then the whole of it is read again, chain and all.
                    async for _ in self.log.follow(before + 1, [f"*.*.{task_id}"]):
                        break
            except TimeoutError:
                kinds = ", ".join(event.kind for event in events) or "nothing"
                raise Differs(f"task {task_id} has no last event after {patience:g} s; on record: {kinds}") from None

    async def whole_log(self) -> list[Event]:
        """Every event on record."""
        last = await self.log.last_seq()
        events: list[Event] = []
        if last:
            async for event in self.log.follow():
                events.append(event)
                if event.seq >= last:
                    break
        return events
