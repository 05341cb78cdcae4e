"""`octo exec` becomes the executor's own command: its arguments, its document, its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60


@pytest.fixture
def environment() -> dict[str, str]:
    """Without the configuration of whoever runs the tests, but with where the programs are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
    if binaries := os.environ.get("OCTO_BIN_DIR"):
        kept["OCTO_BIN_DIR"] = str(Path(binaries).absolute())
    return kept


def execute(directory: Path, environment: dict[str, str], *arguments: str, request: Any = None) -> tuple[int, Any, str]:
    """Exit status, document, messages."""
    done = subprocess.run(
        [sys.executable, "-m", "octollm.cli.main", "exec", *arguments],
        cwd=directory,
        env=environment,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_what_it_says_is_what_the_executor_says(tmp_path: Path, environment: dict[str, str]) -> None:
    request = {"command": ["cat", "a"], "files": [{"path": "a", "type": "file", "text": "text\n"}]}
    status, answer, messages = execute(tmp_path, environment, "--request", "-", request=request)
    assert status == 0, messages
    assert (answer["status"], answer["exit_code"], answer["stdout"]) == ("ok", 0, "text\n")


@pytest.mark.parametrize(
    ("arguments", "request_", "status", "code"),
    [
        (("--request", "-"), {"command": ["false"]}, 1, "STEP_FAILED"),
        (("--request", "-"), {"command": ["no-such-program"]}, 3, "POLICY_DENIED"),
        (("--request", "-"), {"unknown": 1}, 2, "INVALID_REQUEST"),
        (("--no-such-option",), {}, 2, "INVALID_REQUEST"),
    ],
)
def test_its_exit_status_is_the_executor_s(
    tmp_path: Path, environment: dict[str, str], arguments: tuple[str, ...], request_: Any, status: int, code: str
) -> None:
    seen, answer, messages = execute(tmp_path, environment, *arguments, request=request_)
    assert (seen, answer["code"]) == (status, code)
    assert code in messages
