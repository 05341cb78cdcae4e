"""Every fail point of the source is in the list, and every one of the list kills a service in a test."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octollm.events import failpoint
from octollm.stack import SERVICES, Wiring
from octollm.stack import services as table
from tests.chaos.failpoints import test_executor, test_orchestrator, test_planner, test_projections, test_reflex
from tests.chaos.failpoints.crash import Crash
from tests.chaos.failpoints.points import POINTS

REPOSITORY = Path(__file__).parents[3]
ROOMS = ("events", "reflex", "orchestrator", "arms", "projections", "octo")
REACHED = re.compile(r"""failpoint(?:::|\.)reach\("([^"]+)"\)""")


def in_source() -> Iterator[str]:
    for room in ROOMS:
        for path in (REPOSITORY / room).rglob("*"):
            if path.suffix in (".rs", ".py") and path.stem != "failpoint" and "target" not in path.parts:
                yield from REACHED.findall(path.read_text())


def killed_at() -> Iterator[str]:
    modules = (test_executor, test_orchestrator, test_planner, test_projections, test_reflex)
    crashes: list[Crash] = [crash for module in modules for crash in module.CRASHES]
    for crash in crashes:
        yield from (point.partition(":")[0] for point in (crash.point, crash.first) if point)


def test_the_list_is_that_of_the_source() -> None:
    listed = sorted(f"{service}.{point}" for service, points in POINTS.items() for point in points)
    assert sorted(in_source()) == listed, "each point once, under a name of its own"


def test_a_test_kills_at_every_point() -> None:
    assert {f"{service}.{point}" for service, points in POINTS.items() for point in points} == set(killed_at())


REACHING = "from octollm.events.failpoint import reach\nfor n in 1, 2, 3: reach('a'), reach('b'), print(n, flush=True)"


def reaching(armed: str | None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({} if armed is None else {failpoint.VARIABLE: armed})
    return subprocess.run(
        [sys.executable, "-c", REACHING], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("armed", [None, "", "c", "c:2", "a:4"])
def test_a_point_that_is_not_armed_does_nothing(armed: str | None) -> None:
    ended = reaching(armed)
    assert (ended.returncode, ended.stdout) == (0, "1\n2\n3\n"), ended.stderr


@pytest.mark.parametrize(("armed", "before"), [("a", ""), ("b:1", ""), ("a:2", "1\n"), ("b:3", "1\n2\n")])
def test_an_armed_one_kills_the_nth_time(armed: str, before: str) -> None:
    ended = reaching(armed)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, before)
    assert f"fail point {armed[0]}" in ended.stderr


def test_the_stack_tells_no_service_of_the_callers_fail_point(tmp_path: Path) -> None:
    wiring = Wiring(
        data_dir=tmp_path,
        keys_dir=tmp_path,
        urls={name: f"{name}://x" for name in ("nats", "postgres", "redis", "reflex")},
    )
    for service in SERVICES:
        program = table.program(
            service,
            port=1,
            wiring=wiring,
            nkey_file=None,
            caller={failpoint.VARIABLE: "planner.taken", "PATH": "/bin"},
            argv=("x",),
            stack_id="id",
        )
        assert failpoint.VARIABLE not in program.environment
