"""A gate closes for an outage, tries one delivery now and then, and opens when one goes through."""

import pytest

from octollm.events.gate import Gate, Unavailable

OUTAGE = Unavailable("reflex", "it does not answer")


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


async def test_an_open_gate_takes_everything(gate: Gate) -> None:
    assert gate.leave(64) == 64
    assert all(gate.admits(seq) for seq in range(100))
    gate.went_through(1)
    await gate.check()


async def test_an_outage_closes_it_and_one_is_tried(gate: Gate, clock: Clock) -> None:
    gate.close(1, OUTAGE)
    with pytest.raises(Unavailable, match="reflex: it does not answer"):
        await gate.check()
    assert gate.leave(64) == 0
    assert not gate.admits(2)
    assert gate.delay_s >= 0.5
    clock.now += 0.5
    assert gate.leave(64) == 1
    assert gate.admits(2)
    # One at a time, whatever else arrives.
    assert gate.leave(64) == 0
    assert not gate.admits(3)
    gate.went_through(1)
    assert gate.leave(64) == 0, "only the one that is tried opens it"
    gate.went_through(2)
    assert gate.leave(64) == 64
    await gate.check()


def test_the_pauses_grow_to_five_seconds(gate: Gate, clock: Clock) -> None:
    gate.close(0, OUTAGE)
    for seq, pause in enumerate([0.5, 1, 2, 4, 5, 5], 1):
        clock.now += pause - 0.01
        assert not gate.admits(seq)
        clock.now += 0.02
        assert gate.admits(seq)
        gate.close(99, OUTAGE)  # one that was taken before the outage ends late: it tells nothing new
        gate.close(seq, OUTAGE)


async def test_what_nobody_asks_for_any_more_is_forgotten(gate: Gate, clock: Clock) -> None:
    gate.close(1, OUTAGE)
    clock.now += 30
    await gate.check()
    assert gate.leave(64) == 64
