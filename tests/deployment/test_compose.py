"""docker-compose.yml as text: every service is there, healthy is defined, nothing is open to the world."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from octollm.events.config import SECTIONS, Section, load
from octollm.orchestrator.settings import OrchestratorSettings
from octollm.planner.settings import PlannerSettings
from octollm.projections.settings import ProjectionsSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("reflex", "planner", "executor", "orchestrator", "projections")


def test_all_services_are_there() -> None:
    assert set(SERVICES) == {"nats", "postgres", "redis", "bootstrap", *OURS}


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"bootstrap"}))
def test_every_service_says_when_it_is_healthy(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_privileged_or_open(name: str) -> None:
    service = SERVICES[name]
    assert not service.get("privileged")
    assert "docker.sock" not in yaml.safe_dump(service)
    assert service.get("network_mode") is None
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["depends_on"]["bootstrap"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("name", OURS)
def test_variables_follow_the_configuration_scheme(name: str) -> None:
    for variable in SERVICES[name]["environment"]:
        assert variable.startswith("OCTO_")
        section, *keys = variable.removeprefix("OCTO_").split("__")
        assert section.lower() in SECTIONS
        assert keys, variable
        assert all(key.isupper() for key in keys), variable


@pytest.mark.parametrize(
    ("name", "model"),
    [("orchestrator", OrchestratorSettings), ("planner", PlannerSettings), ("projections", ProjectionsSettings)],
)
def test_the_python_services_take_their_variables(name: str, model: type[Section]) -> None:
    load(name, model, SERVICES[name]["environment"])


def test_the_broker_syncs_and_encrypts() -> None:
    config = COMPOSE["configs"]["nats"]["content"]
    assert "sync_interval: always" in config
    assert "cipher: aes" in config
    assert "$$OCTO_NATS_STORE_KEY" in config


def test_secrets_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "${OCTO_NATS_STORE_KEY:?" in text
    assert "${OCTO_POSTGRES_PASSWORD:?" in text
