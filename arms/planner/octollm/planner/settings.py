"""The section `planner` of the configuration."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from octollm.events.config import ConfigError, Section


class PlannerSettings(Section):
    """How the planner runs.

    port: health and metrics on loopback. provider: `offline` needs no model; `openai` is any endpoint that speaks the
    OpenAI chat protocol, at `base_url` (without it, OpenAI's own), asked for `model`. The key is `api_key`, the content
    of `api_key_file`, or OPENAI_API_KEY; an endpoint of one's own may need none. reflex_url: what screens the texts
    that a model wrote. concurrency: tasks planned at once. call_seconds, plan_seconds: the longest call of a model and
    the longest planning with all its calls. max_output_tokens: of one call.
    """

    port: int = Field(8002, ge=1, le=65535)
    provider: Literal["offline", "openai"] = "offline"
    model: str | None = Field(None, min_length=1, max_length=200)
    base_url: str | None = Field(None, pattern=r"^https?://")
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    reflex_url: str = Field("http://127.0.0.1:8001", pattern=r"^https?://")
    concurrency: int = Field(16, ge=1, le=64)
    call_seconds: float = Field(60, gt=0, le=600)
    plan_seconds: float = Field(120, gt=0, le=3600)
    max_output_tokens: int = Field(4000, ge=256, le=32000)

    def key(self, environment: Mapping[str, str] = os.environ) -> SecretStr:
        """The provider's API key. Raises ConfigError where one is needed and there is none."""
        if self.api_key is not None:
            return self.api_key
        if self.api_key_file is not None:
            try:
                key = self.api_key_file.read_text().strip()
            except OSError as error:
                raise ConfigError(f"OCTO_PLANNER__API_KEY_FILE can't be read: {error.strerror}") from error
            if not key:
                raise ConfigError("OCTO_PLANNER__API_KEY_FILE names an empty file")
            return SecretStr(key)
        if named := environment.get("OPENAI_API_KEY"):
            return SecretStr(named)
        if self.base_url is None:
            raise ConfigError("OCTO_PLANNER__PROVIDER=openai needs OPENAI_API_KEY, or OCTO_PLANNER__API_KEY_FILE")
        return SecretStr("none")

    def chosen_model(self) -> str:
        """The model to ask. Raises ConfigError where none is named."""
        if self.model is None:
            raise ConfigError(f"OCTO_PLANNER__PROVIDER={self.provider} needs OCTO_PLANNER__MODEL")
        return self.model
