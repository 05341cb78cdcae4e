"""States in memory: who holds a task, and which tasks are kept."""

import asyncio

from octollm.orchestrator.cache import ENDED_PER_OPEN, Cache, Entry
from octollm.orchestrator.fold import fold
from octollm.orchestrator.state import Ended, New
from tests.orchestrator.history import History, received


def open_entry() -> Entry:
    history = History()
    history.add(received())
    return Entry(fold(history.events))


def ended_entry() -> Entry:
    return Entry(Ended(open_entry().state.position, "completed"))


async def test_a_task_has_one_holder_at_a_time_in_the_order_of_asking() -> None:
    cache, log = Cache(10), list[str]()

    async def handle(task_id: str, name: str) -> None:
        async with cache.hold(task_id):
            log.append(f"{name} takes")
            await asyncio.sleep(0)
            log.append(f"{name} leaves")

    await asyncio.gather(*(handle("one", name) for name in "abc"))
    assert log == [f"{name} {what}" for name in "abc" for what in ("takes", "leaves")]


async def test_tasks_do_not_wait_for_each_other() -> None:
    cache = Cache(10)
    async with cache.hold("one"), asyncio.timeout(10), cache.hold("another"):
        pass


def test_the_least_recently_used_give_way() -> None:
    cache = Cache(2)
    entries = {name: open_entry() for name in "abc"}
    cache.put("a", entries["a"])
    cache.put("b", entries["b"])
    taken = cache.take("a")
    assert taken is entries["a"]
    assert cache.take("a") is None, "what is taken is not in the cache"
    cache.put("a", taken)
    cache.put("c", entries["c"])
    assert {name: cache.take(name) for name in "abc"} == entries | {"b": None}


def test_of_an_ended_task_only_the_id_is_kept_and_not_for_ever() -> None:
    cache = Cache(1)
    for number in range(ENDED_PER_OPEN + 1):
        cache.put(str(number), ended_entry())
        assert cache.take(str(number)) is None
    assert not cache.has_ended("0")
    assert cache.has_ended("1")


def test_a_task_without_events_is_not_kept() -> None:
    cache = Cache(1)
    cache.put("a", Entry(New()))
    assert cache.take("a") is None
    assert not cache.has_ended("a")
