"""`octo verify` and receipts: what `octo exec` prints, and what stands in a log; keys, damage, and what is said."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from octollm.cli.failure import Exit
from octollm.stack import StackOptions
from octollm.stack.services import find
from tests.cli.conftest import Octo

GIVEN = StackOptions().bin_dir
BIN_DIR = GIVEN and GIVEN.absolute()
"""As the environment has it, which the tests' `octo` does without."""

ECHO = {"command": ["echo", "hello"]}


def execute(home: Path, request: Any, *arguments: str) -> str:
    """What `octo exec` prints in this directory."""
    binary = find(("octollm-executor", "exec", "--request", "-", *arguments), BIN_DIR)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCTO_")}
    done = subprocess.run(
        binary, input=json.dumps(request), capture_output=True, text=True, cwd=home, env=environment, check=False
    )
    assert done.stdout.count("\n") == 1, done.stderr
    return done.stdout


def test_every_answer_of_exec_has_a_receipt_that_holds(octo: Octo, tmp_path: Path) -> None:
    for number, (request, arguments, code, started) in enumerate(
        (
            (ECHO, (), None, True),
            ({"command": ["curl", "http://127.0.0.1"]}, (), "POLICY_DENIED", False),
            ({"command": ["false"]}, (), "STEP_FAILED", True),
            (ECHO | {"env": {"LD_PRELOAD": "x.so"}}, (), "POLICY_DENIED", False),
            (ECHO, ("--backend", "docker"), "SANDBOX_UNAVAILABLE", False),
            (ECHO, ("--bypass-policy",), None, True),
        )
    ):
        printed = execute(tmp_path, request, *arguments)
        answer = json.loads(printed)
        assert list(answer)[-1] == "receipt"
        assert answer["code"] == code
        file = Path(f"{number}.json")
        file.write_text(printed)
        told = octo("verify", "--receipt", str(file), "--json")
        assert told.exit_code == Exit.DONE, told.stdout
        found = json.loads(told.stdout)
        assert (found["verified"], found["as_written"]) == (True, True)
        predicate = found["statement"]["predicate"]
        assert predicate["result"]["started"] is started
        assert predicate["result"].get("code") == code
        assert predicate["policy"]["bypassed"] is ("--bypass-policy" in arguments)
        assert "attempt" not in predicate
        for said in ("receipt verified, key", "byte by byte", "can sign anything", "host's kernel"):
            assert said in octo("verify", "--receipt", str(file)).stdout
    key = Path(".octo/keys/receipt.key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.with_suffix(".pub").read_text().startswith("ed25519/")


def test_what_could_not_be_read_has_none_and_a_key_that_others_know_signs_nothing(tmp_path: Path) -> None:
    assert "receipt" not in json.loads(execute(tmp_path, {"command": "echo"}))
    assert not (tmp_path / ".octo").exists()
    execute(tmp_path, ECHO)
    (tmp_path / ".octo/keys/receipt.key").chmod(0o644)
    answer = json.loads(execute(tmp_path, ECHO))
    assert (answer["code"], answer["stdout"]) == ("INTERNAL_ERROR", "")
    assert "receipt" not in answer


def test_an_answer_that_was_changed_is_named(octo: Octo, tmp_path: Path) -> None:
    printed = execute(tmp_path, ECHO)
    answer = json.loads(printed)

    def judged(text: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        result = octo("verify", "--receipt", "-", "--json", *arguments, stdin=text)
        return result.exit_code, json.loads(result.stdout)

    formatted = judged(json.dumps(answer, indent=1))
    assert (formatted[0], formatted[1]["as_written"]) == (Exit.DONE, False)
    alone = judged(json.dumps(answer["receipt"]))
    assert (alone[0], alone[1]["as_written"]) == (Exit.DONE, None)
    envelope = answer["receipt"]
    payload = envelope["payload"]
    for changed, code in (
        (answer | {"stdout": "hullo\n"}, "ALTERED"),
        (answer | {"more": 1}, "ALTERED"),
        (answer | {"receipt": envelope | {"payload": payload[:40] + "AAAA" + payload[44:]}}, "BAD_SIGNATURE"),
        (answer | {"receipt": envelope | {"signatures": []}}, "MALFORMED"),
        (answer | {"receipt": None}, "MALFORMED"),
    ):
        exit_code, told = judged(json.dumps(changed))
        assert (exit_code, told["finding"]["code"]) == (Exit.FAILED, code)
    said = octo("verify", "--receipt", "-", stdin=printed.replace("hello", "hullo"))
    assert "✗ ALTERED  the result is not what was signed" in said.stdout
    other = tmp_path / "other"
    other.mkdir()
    execute(other, ECHO)
    exit_code, told = judged(printed, "--receipt-key", "other/.octo/keys/receipt.pub")
    assert (exit_code, told["finding"]["code"]) == (Exit.FAILED, "UNKNOWN_KEY")
    both = judged(printed, "--receipt-key", "other/.octo/keys/receipt.pub", "--receipt-key", ".octo/keys/receipt.pub")
    assert both[0] == Exit.DONE


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json", '"receipt"', "[" * 100_000])
def test_what_holds_no_receipt_is_wrong_usage(octo: Octo, tmp_path: Path, text: str) -> None:
    Path("key.pub").write_text("ed25519/" + "00" * 32)
    result = octo("verify", "--receipt", "-", "--receipt-key", "key.pub", stdin=text)
    assert result.exit_code == Exit.USAGE
    assert "holds no receipt" in result.stderr


def test_wrong_usage(octo: Octo) -> None:
    Path("empty.pub").write_text("# none\n")
    Path("broken.pub").write_text("ed25519/1234\n")
    for arguments in (
        ("--receipt", "nowhere"),
        ("--receipt", "-", "--all"),
        ("--receipt", "-", "--file", "x"),
        ("--receipt", "-", "--receipt-key", "nowhere.pub"),
        ("--all", "--file", "x", "--receipt-key", "empty.pub"),
        ("--all", "--file", "x", "--receipt-key", "broken.pub"),
    ):
        assert octo("verify", *arguments, stdin="{}").exit_code == Exit.USAGE, arguments
