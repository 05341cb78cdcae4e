"""The table of services: what is run and what each one is told."""

from pathlib import Path

import pytest

from octollm.events.capability import SigningKey
from octollm.stack import SERVICES, Missing, StackError, Wiring, accounts
from octollm.stack import services as table

CALLER = {
    "PATH": "/usr/bin",
    "LC_ALL": "C",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "OPENAI_API_KEY": "key",
    "OCTO_NATS__URL": "nats://elsewhere",
    "OCTO_POSTGRES__URL": "postgresql://secret",
    "OCTO_REDIS__URL": "redis://secret",
    "OCTO_PLANNER__MODEL": "m",
    "OCTO_EXECUTOR__BACKEND": "docker",
    "OCTO_BIN_DIR": "/bin",
}


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    (tmp_path / "keys").mkdir()
    urls = {"nats": "nats://n", "postgres": "postgresql://p", "redis": "redis://r", "reflex": "http://x"}
    return Wiring(data_dir=tmp_path, keys_dir=tmp_path / "keys", urls=urls)


def told(name: str, wiring: Wiring) -> dict[str, str]:
    service = next(service for service in SERVICES if service.name == name)
    key = accounts.key_file(wiring.keys_dir, name)
    program = table.program(service, port=1, wiring=wiring, nkey_file=key, caller=CALLER, argv=("x",), stack_id="id")
    assert program.name == name
    assert program.address == "http://127.0.0.1:1"
    return {k: v for k, v in program.environment.items() if k.startswith(("OCTO_", "OPENAI_", "AWS_"))}


def test_every_service_is_told_its_own_and_no_more(wiring: Wiring) -> None:
    digest_key = wiring.keys_dir / "reflex-digest.key"
    signing_key = wiring.keys_dir / "capability.key"
    public_key = wiring.keys_dir / "capability.pub"
    receipt_key = wiring.keys_dir / "receipt.key"
    operator_key = wiring.keys_dir / "operator.key"

    def bus(name: str) -> dict[str, str]:
        return {"OCTO_NATS__URL": "nats://n", "OCTO_NATS__NKEY_FILE": f"{wiring.keys_dir}/nats-{name}.nk"}

    assert {service.name: told(service.name, wiring) for service in SERVICES} == {
        "projections": bus("projections")
        | {
            "OCTO_POSTGRES__URL": "postgresql://p",
            "OCTO_PROJECTIONS__PORT": "1",
            "OCTO_PROJECTIONS__REFLEX_URL": "http://x",
        },
        "reflex": bus("reflex")
        | {"OCTO_REDIS__URL": "redis://r", "OCTO_REFLEX__PORT": "1", "OCTO_REFLEX__DIGEST_KEY_FILE": str(digest_key)},
        "planner": bus("planner")
        | {
            "OCTO_PLANNER__PORT": "1",
            "OCTO_PLANNER__MODEL": "m",
            "OCTO_PLANNER__REFLEX_URL": "http://x",
            "OPENAI_API_KEY": "key",
        },
        "executor": bus("executor")
        | {
            "OCTO_EXECUTOR__PORT": "1",
            "OCTO_EXECUTOR__BACKEND": "docker",
            "OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE": str(public_key),
            "OCTO_EXECUTOR__RECEIPT_KEY_FILE": str(receipt_key),
            "OCTO_EXECUTOR__OPERATOR_KEY_FILE": str(operator_key),
        },
        "orchestrator": bus("orchestrator")
        | {"OCTO_ORCHESTRATOR__PORT": "1", "OCTO_ORCHESTRATOR__CAPABILITY_KEY_FILE": str(signing_key)},
    }
    assert digest_key.stat().st_mode & 0o777 == 0o600
    assert signing_key.stat().st_mode & 0o777 == 0o600
    assert operator_key.stat().st_mode & 0o777 == 0o600
    assert receipt_key.stat().st_mode & 0o777 == 0o600
    assert public_key.read_text() == SigningKey.load(signing_key).public


def test_the_ports_are_those_of_the_documents() -> None:
    assert {service.name: service.port for service in SERVICES} == {
        "projections": 8000,
        "reflex": 8001,
        "planner": 8002,
        "executor": 8003,
        "orchestrator": 8004,
    }


def test_a_service_without_its_server_is_refused(wiring: Wiring) -> None:
    bare = Wiring(data_dir=wiring.data_dir, keys_dir=wiring.keys_dir, urls={})
    with pytest.raises(StackError, match="no postgres"):
        told("projections", bare)


def test_a_binary_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, on_path = tmp_path / "given", tmp_path / "path"
    for directory in (given, on_path):
        directory.mkdir()
        (directory / "octollm-made-up").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(on_path))
    assert table.find(("octollm-made-up", "-v"), given) == (str(given / "octollm-made-up"), "-v")
    assert table.find(("octollm-made-up",), None) == (str(on_path / "octollm-made-up"),)
    with pytest.raises(Missing, match=r"target/release.*target/debug.*PATH.*cargo build"):
        table.find(("octollm-nowhere",), None)
