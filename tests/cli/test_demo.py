"""The demo end to end: every service, nine tasks, each checked against the log. Without the Rust binaries it fails."""

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from octollm.cli.demo.disguise import seen_in

NEEDS_THE_EXECUTOR = {1, 2, 3, 4, 5, 7, 9}
"""By number; the planner may refuse the eighth by itself, and the sixth gets no further than reflex."""


async def demo(directory: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "octollm.cli.main", "demo", "--json", *arguments),
        cwd=directory,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode or 0, json.loads(out)


@pytest.fixture(autouse=True)
def _binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    if directory := os.environ.get("OCTO_BIN_DIR"):
        monkeypatch.setenv("OCTO_BIN_DIR", str(Path(directory).absolute()))


@pytest.mark.timeout(300)
async def test_the_demo_goes_as_it_should(tmp_path: Path) -> None:
    code, report = await demo(tmp_path)
    assert "scenarios" in report, report
    differences = {row["number"]: (row["difference"], row["said"]) for row in report["scenarios"] if not row["passed"]}
    assert differences == {}
    assert (code, report["passed"], report["failed"]) == (0, 9, 0)
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


@pytest.mark.timeout(300)
async def test_the_demo_fails_without_the_executor(tmp_path: Path) -> None:
    began = time.monotonic()
    code, report = await demo(tmp_path, "--without", "executor")
    assert "scenarios" in report, report
    failed = {row["number"] for row in report["scenarios"] if not row["passed"]}
    assert code == 1
    assert failed >= NEEDS_THE_EXECUTOR
    assert time.monotonic() - began < 200


async def test_a_service_that_there_is_not(tmp_path: Path) -> None:
    code, report = await demo(tmp_path, "--without", "electricity")
    assert code == 2
    assert "executor" in report["error"]["hint"]


SECRET = "alice.canary@example.com"


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("plain", SECRET.upper()),
        ("percent-encoded", quote(SECRET)),
        ("hexadecimal", SECRET.encode().hex().upper()),
        ("base64 at offset 0", base64.b64encode(SECRET.encode()).decode()),
        ("base64 at offset 1", base64.b64encode(f"x{SECRET} and more".encode()).decode()),
        ("base64 at offset 2", base64.b64encode(f"xy{SECRET}".encode()).decode()),
    ],
)
def test_a_secret_is_seen_in_every_form(form: str, content: str) -> None:
    assert seen_in(f'{{"goal": "{content}"}}'.encode(), SECRET) == form


def test_other_text_is_no_secret() -> None:
    assert seen_in(b"contact [EMAIL_1], bob@example.com, YWxpY2U=", SECRET) is None
