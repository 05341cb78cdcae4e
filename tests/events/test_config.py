"""Configuration: precedence, and clear refusals."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from octollm.events.config import ConfigError, NatsSettings, PostgresSettings, Section, load


class Planner(Section):
    port: int = Field(default=8002, ge=0, le=65535)
    model: str = "none"
    key: SecretStr = SecretStr("")


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "octo.toml"
    path.write_text('[planner]\nport = 1\nmodel = "file"\n')
    return path


def test_flags_go_before_environment_before_file(toml: Path) -> None:
    environment = {"OCTO_CONFIG": str(toml), "OCTO_PLANNER__PORT": "2"}
    assert load("planner", Planner, environment) == Planner(port=2, model="file")
    assert load("planner", Planner, environment, port=3).port == 3
    assert load("planner", Planner, environment, port=None).port == 2


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OCTO_PLANNER__PROT": "1"}, "OCTO_PLANNER__PROT"),
        ({"OCTO_PLANER__PORT": "1"}, "unknown section PLANER"),
        ({"OCTO_PLANNER__PORT": "high"}, "OCTO_PLANNER__PORT"),
        ({"OCTO_CONFIG": "/nowhere/octo.toml"}, "does not exist"),
    ],
)
def test_what_is_unknown_or_invalid_stops_the_start(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("planner", Planner, environment)


def test_secrets_are_not_shown() -> None:
    settings = load("postgres", PostgresSettings, {"OCTO_POSTGRES__URL": "postgresql://u:canary@h/d"})
    assert "canary" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        load("planner", Planner, {"OCTO_PLANNER__PORT": "canary"})
    assert "canary" not in str(caught.value)


def test_other_sections_are_not_judged_here() -> None:
    assert load("planner", Planner, {"OCTO_EXECUTOR__WHATEVER": "1", "OCTO_LOG": "debug"}) == Planner()


def test_replicas_are_a_small_number() -> None:
    assert load("nats", NatsSettings, {}).replicas == 1
    assert load("nats", NatsSettings, {"OCTO_NATS__REPLICAS": "3"}).replicas == 3
    for wrong in ("0", "6", "many"):
        with pytest.raises(ConfigError, match="OCTO_NATS__REPLICAS"):
            load("nats", NatsSettings, {"OCTO_NATS__REPLICAS": wrong})
