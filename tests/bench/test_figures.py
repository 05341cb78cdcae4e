"""What the bench makes of its measurements."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from bench.load import measure
from bench.pipeline import hops, report
from octollm.events.envelope import Event

NOON = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000_000


def stored(kind: str, seq: int, ms: float) -> Event:
    task_id = str(uuid.UUID(int=1))
    headers = {
        "ce-type": f"octollm.{kind}.v1",
        "ce-subject": task_id,
        "ce-id": task_id,
        "ce-taskversion": str(seq),
        "ce-prevhash": "",
        "ce-causationid": task_id,
        "ce-source": "test",
        "ce-time": "",
    }
    moment = datetime.fromtimestamp(NOON / 1e9 + ms / 1000, UTC)
    return Event.parse(f"{kind}.{task_id}", headers, b"{}", seq, moment)


def test_hops_add_up_to_what_the_client_measured() -> None:
    events = [stored("task.received", 1, 2), stored("step.dispatched", 2, 5), stored("step.executed", 3, 9)]
    events += [stored("step.dispatched", 4, 12), stored("step.executed", 5, 15), stored("task.completed", 6, 20)]
    delivered = {2: NOON + 6_000_000, 4: NOON + 13_000_000}
    found = hops.split(hops.Trace(NOON, NOON + 21_500_000, events), delivered)
    assert sum(found.values()) == pytest.approx(21.5)
    assert found["step.dispatched → at the arm"] == pytest.approx(2)
    assert found["at the arm → step.executed"] == pytest.approx(5)
    assert sum(share for *_, share in hops.table([found, found])) == pytest.approx(100)


async def test_never_more_in_flight_than_asked_for_and_as_many_as_asked_for() -> None:
    now = most = 0

    async def one() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    measured = await measure(one, 20, in_flight=3)
    assert (len(measured.latencies_ms), most) == (20, 3)


def test_a_slow_round_hardly_moves_a_ratio() -> None:
    ours = {1: (20.0, 0, 0, 50.0), 2: (200.0, 0, 0, 5.0), 3: (22.0, 0, 0, 48.0)}
    theirs = {1: (10.0, 0, 0, 100.0), 2: (100.0, 0, 0, 10.0), 3: (10.0, 0, 0, 100.0)}
    assert report.ratio(ours, theirs, 0) == pytest.approx(2.0)
