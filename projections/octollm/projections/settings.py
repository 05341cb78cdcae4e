"""Settings of the view: section `projections` of octo.toml, environment `OCTO_PROJECTIONS__<KEY>`, flags."""

from pydantic import Field

from octollm.events.config import Section


class ProjectionsSettings(Section):
    """Where the view listens and whom it hands commands to."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    reflex_url: str = Field(default="http://127.0.0.1:8001", pattern=r"^https?://[^/?#]+/?$")
    pool_size: int = Field(default=10, ge=1, le=100, description="Most connections for reading; they open when needed.")
    query_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    reflex_timeout_seconds: float = Field(default=10.0, gt=0, le=60)
