"""The connection to the broker."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import nats
import structlog
from nats.aio.client import Client

from octollm.events.config import ConfigError, NatsSettings

_log = structlog.get_logger()
_DENIED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)
_waiting: WeakKeyDictionary[Client, dict[str, set[asyncio.Future[None]]]] = WeakKeyDictionary()
_watchers: WeakKeyDictionary[Client, list["Watcher"]] = WeakKeyDictionary()


async def connect(settings: NatsSettings, name: str, patience_s: float | None = None) -> Client:
    """A connection that, once made, never gives up reconnecting; its inboxes carry the service's name.

    Waits for the broker for ever, or raises ConnectionError after `patience_s`. Raises ConfigError for a key file that
    can't be read or holds no seed of an nkey.
    """
    seed = _seed(settings.nkey_file)
    client = Client()
    _waiting[client] = {}

    async def on_error(error: Exception) -> None:
        if denied := _DENIED.search(str(error)):
            for future in _waiting[client].get(denied[1].lower(), ()):
                if not future.done():
                    future.set_result(None)
        # While the broker is away every attempt fails: that is said once, on disconnecting.
        if not isinstance(error, OSError):
            _log.warning("nats error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not client.is_closed:
            _log.warning("nats disconnected; reconnecting")
            await disconnected(client)

    async def on_reconnect() -> None:
        _log.info("nats reconnected")
        reconnected(client)

    try:
        async with asyncio.timeout(patience_s):
            await client.connect(
                settings.url,
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; a fraction is fine
                connect_timeout=5,
                ping_interval=10,
                max_outstanding_pings=2,
                inbox_prefix=f"_INBOX_{name.replace('.', '_')}".encode(),
                nkeys_seed_str=seed,
            )
    except TimeoutError as error:
        raise ConnectionError(f"no broker answers at {settings.url} (waited {patience_s:g} s)") from error
    return client


def _seed(path: Path | None) -> str | None:
    """The seed in a key file, without which the broker takes whoever connects for a client."""
    if path is None:
        return None
    import nkeys  # type: ignore[import-untyped]

    try:
        seed = path.read_text(encoding="ascii").strip()
        nkeys.from_seed(bytearray(seed.encode()))
    except OSError as error:
        raise ConfigError(f"OCTO_NATS__NKEY_FILE: {path} can't be read: {error.strerror}") from error
    except (nkeys.NkeysError, ValueError):
        # Without the cause: it may quote what the file holds.
        raise ConfigError(f"OCTO_NATS__NKEY_FILE: {path} holds no seed of an nkey") from None
    return seed


@contextlib.contextmanager
def denials(client: Client, subject: str) -> Iterator[asyncio.Future[None]]:
    """A future that is done when the broker refuses a publish to `subject`: the request itself would only time out."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    subject = subject.lower()  # as the client library reports it
    waiting = _waiting.setdefault(client, {}).setdefault(subject, set())
    waiting.add(future)
    try:
        yield future
    finally:
        waiting.discard(future)
        if not waiting:
            _waiting[client].pop(subject, None)
        future.cancel()


async def _nothing_async() -> None:
    return None


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whom to tell what.

    lost: the connection is gone, and not tried again until this returns. made: it is there again, with all its
    subscriptions. gone: a consumer that was pulled from is not there, perhaps with all its stream.
    """

    lost: Callable[[], Awaitable[None]] = _nothing_async
    made: Callable[[], None] = _nothing
    gone: Callable[[], None] = _nothing


@contextlib.contextmanager
def watched(client: Client, watcher: Watcher) -> Iterator[None]:
    """Tells `watcher` what happens while it is entered."""
    watchers = _watchers.setdefault(client, [])
    watchers.append(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)


async def disconnected(client: Client) -> None:
    """Tells everybody who watches that the connection is lost."""
    for watcher in tuple(_watchers.get(client, ())):
        await watcher.lost()


def reconnected(client: Client) -> None:
    """Tells everybody who watches that the connection has been made anew."""
    for watcher in tuple(_watchers.get(client, ())):
        watcher.made()


def missed(client: Client) -> None:
    """Tells everybody who watches that a consumer is not there."""
    for watcher in tuple(_watchers.get(client, ())):
        watcher.gone()


__all__ = ["Client", "Watcher", "connect", "denials", "disconnected", "missed", "nats", "reconnected", "watched"]
