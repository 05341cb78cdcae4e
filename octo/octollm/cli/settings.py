"""The section `stack` of the configuration."""

from pathlib import Path

from octollm.events.config import Section


class StackSettings(Section):
    """Where a local stack keeps its data, and where a stack that runs elsewhere answers."""

    data_dir: Path = Path(".octo")
    api_url: str | None = None
    reflex_url: str | None = None
