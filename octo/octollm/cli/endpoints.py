"""Where the stack is: flags, then `OCTO_…` and `octo.toml`, then the local stack's state file, then the usual ports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from octollm.cli.failure import Failure

if TYPE_CHECKING:
    from octollm.cli.settings import StackSettings
    from octollm.events.config import NatsSettings, Section
    from octollm.stack.state import StackState

M = TypeVar("M", bound="Section")

API_URL = "http://127.0.0.1:8000"
COMMAND_URL = "http://127.0.0.1:8001"
EXECUTOR_URL = "http://127.0.0.1:8003"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """`api_url`: the REST view. `command_url`: where commands go: reflex, where it is known. No slash at the end.

    `named`: a flag or the configuration says where the REST view is.
    """

    api_url: str
    command_url: str
    nats: "NatsSettings"
    named: bool


@dataclass(frozen=True, slots=True)
class GivenServers:
    """URLs, passwords included, of servers that run already; a stack starts the others itself."""

    nats_url: str | None = field(repr=False)
    postgres_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)


def data_dir(flag: Path | None) -> Path:
    """The local stack's data directory: the flag, `OCTO_STACK__DATA_DIR`, `[stack] data_dir`, or `.octo`."""
    return flag or _settings().data_dir


def locate(api_url: str | None = None, nats_url: str | None = None, directory: Path | None = None) -> Endpoints:
    """The endpoints for flags as given; raises Failure for a configuration or state file that can't be used."""
    from octollm.events.config import NatsSettings

    settings = _settings()
    nats = _load("nats", NatsSettings, url=nats_url)
    stack = _running(directory or settings.data_dir)
    services = _addresses(stack)
    if stack and stack.nats_url and "url" not in nats.model_fields_set:
        nats = nats.model_copy(update={"url": stack.nats_url})
    if stack and stack.nats_nkey_file and nats.url == stack.nats_url and nats.nkey_file is None:
        nats = nats.model_copy(update={"nkey_file": Path(stack.nats_nkey_file)})
    # Whoever names one address means it: commands go there too, and the view hands them on.
    named = api_url or settings.api_url
    view = named or services.get("projections", API_URL)
    commands = (None if api_url else settings.reflex_url) or named or services.get("reflex", COMMAND_URL)
    return Endpoints(api_url=view.rstrip("/"), command_url=commands.rstrip("/"), nats=nats, named=named is not None)


def executor(directory: Path | None = None) -> str:
    """The executor's base URL; raises Failure as `locate` does."""
    return _addresses(_running(data_dir(directory))).get("executor", EXECUTOR_URL)


def given_servers() -> GivenServers:
    """What the configuration says about servers."""
    from octollm.events.config import NatsSettings, PostgresSettings, RedisSettings

    nats = _load("nats", NatsSettings)
    postgres = _load("postgres", PostgresSettings)
    redis = _load("redis", RedisSettings)
    return GivenServers(
        nats_url=nats.url if "url" in nats.model_fields_set else None,
        postgres_url=postgres.url.get_secret_value() if "url" in postgres.model_fields_set else None,
        redis_url=redis.url.get_secret_value() if "url" in redis.model_fields_set else None,
    )


def _running(directory: Path) -> "StackState | None":
    from octollm.stack.errors import StackError
    from octollm.stack.state import read

    try:
        state = read(directory)
    except StackError as error:
        raise Failure.usage(str(error), "put it right and try again") from error
    return state if state is not None and state.alive else None


def _addresses(stack: "StackState | None") -> dict[str, str]:
    return {process.name: process.address for process in stack.processes} if stack else {}


def _settings() -> "StackSettings":
    from octollm.cli.settings import StackSettings

    return _load("stack", StackSettings)


def _load(section: str, model: type[M], **flags: Any) -> M:
    from octollm.events import config

    try:
        return config.load(section, model, **flags)
    except config.ConfigError as error:
        raise Failure.usage(str(error), "put it right and try again") from error
