"""What the planner expects of the real reflex: that it screens plans, and leaves alone what recipes let checks read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from octollm.events.carrier import TaskPlanned
from octollm.planner import offline
from octollm.planner.screening import Screen
from octollm.stack import SERVICES, Stack, StackOptions
from tests.planner.interpreter import run
from tests.planner.tasks import own_plan, planned, received, step
from tests.planner.test_recipes import FAMILIES

REFLEX = tuple(service for service in SERVICES if service.name == "reflex")


@asynccontextmanager
async def reflex_url() -> AsyncIterator[str]:
    """Reflex as `octo up` runs it."""
    options = StackOptions(
        ephemeral=True, ports="free", accounts=False, servers=frozenset({"nats", "valkey"}), services=REFLEX
    )
    async with Stack(options) as stack:
        yield stack.url("reflex")


async def test_personal_data_in_a_plan_is_replaced() -> None:
    plan = own_plan(
        step(
            "a",
            title="Mail ann.lee@example.com",
            action={"kind": "command", "pipeline": [["echo", "4111111111111111"]]},
        )
    )
    async with reflex_url() as url:
        screen = Screen(url)
        await screen.ready()
        clean = await screen.clean(plan)
        await screen.close()
    assert isinstance(clean, TaskPlanned)
    text = msgspec.json.encode(clean).decode()
    assert "ann.lee" not in text
    assert "4111111111111111" not in text
    assert clean.steps[0].title == "Mail [EMAIL_1]"
    assert clean.steps[0].limits == planned(plan).steps[0].limits


async def test_what_a_recipes_checks_read_from_the_record_survives_the_screen(tmp_path: Path) -> None:
    async with reflex_url() as url, httpx.AsyncClient(base_url=url) as reflex:
        for number, row in enumerate(row for table in FAMILIES.values() for row in table["planned"]):
            workspace = tmp_path / str(number)
            workspace.mkdir()
            for name, text in row.get("files", {}).items():
                (workspace / name).parent.mkdir(parents=True, exist_ok=True)
                (workspace / name).write_text(text)
            steps = msgspec.to_builtins(planned(offline.plan(received(row["goal"]))).steps)
            result = run(steps, workspace)
            read = {
                criterion["step"]
                for one in steps
                for criterion in one["action"].get("criteria", [])
                if "step" in criterion
            }
            for name in read:
                query = {"text": result.outputs[name], "role": "output"}
                answer = (await reflex.post("/api/v1/reflex/process", json=query)).raise_for_status().json()
                assert answer["redacted"] == result.outputs[name], row["goal"]
