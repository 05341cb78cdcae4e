"""The section `orchestrator` of the configuration."""

from pathlib import Path

from pydantic import Field

from octollm.events.config import Section
from octollm.orchestrator.saga import GRACE


class OrchestratorSettings(Section):
    """How the orchestrator runs.

    port: health and metrics on loopback. capability_key_file: the private key that signs dispatches, mode 0600;
    without it nothing starts. grace_seconds: what an arm gets on top of a step's wall clock, and after a
    cancel, before it counts as silent. cache_size: open tasks whose state is kept in memory.
    """

    port: int = Field(8004, ge=1, le=65535)
    capability_key_file: Path
    grace_seconds: float = Field(GRACE.total_seconds(), gt=0, le=300)
    cache_size: int = Field(4096, ge=1, le=1_000_000)
