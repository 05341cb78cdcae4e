"""An event that this version can't read is shown as that, in its task alone."""

import pytest

from octollm.events import bus
from octollm.events.config import PostgresSettings
from octollm.events.log import Log
from tests.events.newer import Newer, store
from tests.projections import story
from tests.projections.conftest import Running
from tests.projections.story import Told
from tests.projections.test_projector import rows


@pytest.mark.parametrize("newer", Newer)
@pytest.mark.parametrize("kind", ["task.planned", "step.executed", "task.completed"])
async def test_it_is_kept_and_counted_and_the_view_goes_on(
    client: bus.Client, log: Log, projector: Running, postgres: PostgresSettings, kind: str, newer: Newer
) -> None:
    odd, other = Told(log), Told(log)
    before = {"task.planned": 1, "step.executed": 3, "task.completed": 8}[kind]
    await odd.tell(*story.COMPLETED[:before])
    unread = await store(client, odd.task_id, kind, odd.position, newer)
    end = await other.tell(*story.COMPLETED)
    await projector.reach(end)
    found = await rows(
        postgres,
        "SELECT task_id, status, version, undecodable FROM tasks WHERE task_id = ANY($1)",
        [odd.task_id, other.task_id],
    )
    assert {row["task_id"]: (row["version"], row["undecodable"]) for row in found} == {
        odd.task_id: (before + 1, 1),
        other.task_id: (9, 0),
    }
    assert {row["status"] for row in found if row["task_id"] == other.task_id} == {"completed"}
    (event,) = await rows(
        postgres, "SELECT seq, raw, undecodable FROM events WHERE task_id = $1 AND undecodable IS NOT NULL", odd.task_id
    )
    assert (event["seq"], event["raw"]) == (unread.seq, unread.body)
    assert (
        "v2 is not known" in event["undecodable"]
        if newer is Newer.VERSION
        else "breaks its schema" in (event["undecodable"])
    )
