"""Logs: their ends in messages, their lines as they are written."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octollm.stack import logs


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return logs.log_file(tmp_path / "logs", "nats")


async def take(lines: AsyncIterator[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    return [await anext(lines) for _ in range(number)]


def rewrite(log: Path, text: str, *, aside: bool = False) -> None:
    if aside:
        log.replace(log.with_name("nats.log.1"))
    log.write_text(text)


def test_the_tail_is_of_this_run_and_bounded(log: Path) -> None:
    assert logs.tail(log) == []
    assert logs.quoted(log) == f"{log} is empty"
    with logs.open_log(log) as file:
        file.write(b"earlier\n")
        since = file.tell()
        file.write(b"".join(b"%d\n" % n for n in range(50_000)) + b"\xff end")
    assert logs.tail(log, 2, since) == ["49999", "\ufffd end"]
    assert "earlier" not in logs.tail(log, 100_000, since)
    assert len("\n".join(logs.tail(log, 100_000))) <= logs.TAIL_BYTES
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_long_log_is_set_aside_at_the_next_start(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KEEP_BYTES", 10)
    for line in (b"first run\n", b"second\n"):
        with logs.open_log(log) as file:
            file.write(line)
    with logs.open_log(log) as file:
        file.write(b"third\n")
    assert log.with_name("nats.log.1").read_text() == "first run\nsecond\n"
    assert log.read_text() == "third\n"
    assert logs.log_files(log.parents[1]) == {"nats": log}


async def test_following_sees_what_is_written_cut_and_replaced(log: Path) -> None:
    with logs.open_log(log) as file:
        file.write(b"1\n2\n3\n")
    other = log.with_name("reflex.log")
    lines = logs.follow([log, other], lines=2)
    assert await take(lines, 2) == [("nats", "2"), ("nats", "3")]
    with logs.open_log(other) as file:
        file.write(b"begun ")
        file.write(b"and ended\n")
    assert await take(lines, 1) == [("reflex", "begun and ended")]
    rewrite(log, "4\n")
    assert await take(lines, 1) == [("nats", "4")]
    rewrite(log, "a longer line than before\n", aside=True)
    assert await take(lines, 1) == [("nats", "a longer line than before")]
