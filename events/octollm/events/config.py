"""The one configuration scheme: flags, then environment `OCTO_<SECTION>__<KEY>`, then `octo.toml` (DESIGN: running it).

An unknown section or key and an invalid value stop the start with a message that names it. Secrets are SecretStr.
`OCTO_CONFIG` names the file; without it `./octo.toml` is read where it exists.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

SECTIONS = frozenset(
    ("nats", "postgres", "redis", "stack", "reflex", "orchestrator", "planner", "executor", "projections")
)
PREFIX = "OCTO_"


class ConfigError(ValueError):
    """The configuration can't be used; the message says which key and why."""


class Section(BaseModel):
    """Base of every section's model."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NatsSettings(Section):
    """Where the broker is, and the file with the seed of this program's nkey, where the broker asks for one.

    monitor_url: its HTTP monitoring, which alone says whether acknowledged means on disk.
    replicas: how many servers of a cluster keep each stream, for whoever makes or checks them; 3 outlasts one of them.
    """

    url: str = "nats://127.0.0.1:4222"
    nkey_file: Path | None = None
    monitor_url: str | None = None
    replicas: int = Field(default=1, ge=1, le=5)


class PostgresSettings(Section):
    """Where the projections are kept; the URL holds a password."""

    url: SecretStr = SecretStr("postgresql://127.0.0.1:5433/octollm")


class RedisSettings(Section):
    """Where cache and rate limits are kept; the URL may hold a password."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6380/0")


M = TypeVar("M", bound=Section)


def _file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get("OCTO_CONFIG")
    path = Path(named or "octo.toml")
    if not path.exists():
        if named:
            raise ConfigError(f"OCTO_CONFIG names {path}, which does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error


def load(section: str, model: type[M], environment: Mapping[str, str] | None = None, **flags: Any) -> M:
    """The settings of one section. Flags that are None count as not given. Raises ConfigError."""
    environment = os.environ if environment is None else environment
    from_file = _file(environment)
    if unknown := sorted(from_file.keys() - SECTIONS):
        raise ConfigError(
            f"octo.toml: unknown section(s) {', '.join(unknown)}; known are {', '.join(sorted(SECTIONS))}"
        )
    values: dict[str, Any] = dict(from_file.get(section, {}))
    for name, value in sorted(environment.items()):
        owner, separator, key = name.removeprefix(PREFIX).partition("__")
        if not name.startswith(PREFIX) or not separator:
            continue
        if owner.lower() not in SECTIONS:
            raise ConfigError(f"{name}: unknown section {owner}; known are {', '.join(sorted(SECTIONS)).upper()}")
        if owner.lower() == section:
            values[key.lower()] = value
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = "__".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"{PREFIX}{section.upper()}__{key} ([{section}] in octo.toml): {first['msg']}") from error
