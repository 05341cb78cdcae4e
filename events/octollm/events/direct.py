"""Direct gets: messages of a stream by sequence and subject, without a consumer (NATS ADR-31).

Reading this way needs no right to make consumers. That right is a right to write: a push consumer's deliver subject is
its maker's choice, and the account that owns the streams would deliver stored messages to a command's subject.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from octollm.events.bus import denials
from octollm.events.envelope import parse_broker_time
from octollm.events.inbox import Inbox

_log = structlog.get_logger()

_POLL_S = 2.0
"""How long a follower relies on hearing of new messages before it looks for itself."""

_RETRY_S = 0.25
_ANSWER_S = 5.0
_OF_THE_ANSWER = frozenset(
    (
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Sequence",
        "Nats-Time-Stamp",
        "Nats-Num-Pending",
        "Nats-Last-Sequence",
        "Nats-UpTo-Sequence",
    )
)
"""Headers that the broker adds to what is stored."""


class DirectGetFailed(Exception):
    """No answer, a refusal, or messages of the answer were lost: ask again."""


class DirectGetDenied(DirectGetFailed):
    """The broker does not let this service read the stream."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it is stored. `pending`: how many more there are behind it that match the request."""

    subject: str
    headers: dict[str, str]
    data: bytes
    seq: int
    stored_at: datetime
    pending: int


async def last(client: Client, stream: str, subject: str, timeout_s: float) -> Stored | None:
    """The newest message on a subject without wildcards; None where there is none."""
    return await _one(client, f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout_s)


async def newest(client: Client, stream: str, timeout_s: float, subject: str = ">") -> Stored | None:
    """The newest message of the stream that matches the wildcard `subject`; None where there is none."""
    body = json.dumps({"last_by_subj": subject}).encode()
    return await _one(client, f"$JS.API.DIRECT.GET.{stream}", body, timeout_s)


async def at(client: Client, stream: str, seq: int, timeout_s: float) -> Stored | None:
    """The message of a sequence; None where there is none."""
    return await _one(client, f"$JS.API.DIRECT.GET.{stream}", json.dumps({"seq": seq}).encode(), timeout_s)


async def batch(
    client: Client, stream: str, subject: str, first: int | datetime, size: int, timeout_s: float
) -> tuple[list[Stored], int]:
    """Up to `size` messages that match the wildcard `subject`, and how many more there are.

    `first`: the sequence from which on, or the broker's time.
    """
    call = f"$JS.API.DIRECT.GET.{stream}"
    start = {"seq": first} if isinstance(first, int) else {"start_time": first.isoformat()}
    request = start | {"next_by_subj": subject, "batch": size}
    messages: list[Stored] = []
    try:
        async with Inbox(client) as inbox:
            with denials(client, call) as denied:
                denied.add_done_callback(lambda _: inbox.wake())
                await client.publish(call, json.dumps(request).encode(), reply=inbox.subject)
                while True:
                    answer = await _answer(inbox, denied, call, timeout_s)
                    headers = answer.headers or {}
                    before = messages[-1].seq if messages else 0
                    if int(headers.get("Nats-Last-Sequence", before)) != before:
                        raise DirectGetFailed("a message of a batched direct get was lost")
                    if "Nats-Sequence" in headers:
                        messages.append(_stored(answer))
                        continue
                    match headers.get("Status"):
                        case "204":
                            return messages, int(headers.get("Nats-Num-Pending", "0"))
                        case "404":
                            return messages, 0
                        case status:
                            raise DirectGetFailed(f"a direct get was refused with status {status}")
    except (nats_errors.Error, OSError) as error:
        raise DirectGetFailed(f"a batched direct get went wrong: {str(error) or type(error).__name__}") from error


async def _answer(inbox: Inbox, denied: asyncio.Future[None], call: str, timeout_s: float) -> Msg:
    """The next part of a batched answer."""
    while True:
        if denied.done():
            raise DirectGetDenied(f"the broker does not let this service call {call}")
        if answer := inbox.take():
            return answer
        if asyncio.get_running_loop().time() >= inbox.heard + timeout_s:
            raise DirectGetFailed(f"no answer to a batched direct get within {timeout_s:g} s")
        await inbox.wait(inbox.heard + timeout_s)


async def follow(
    client: Client, stream: str, start_seq: int, subjects: Sequence[str] = (), size: int = 256, pace_s: float = 0.0
) -> AsyncGenerator[Stored, None]:
    """Every message from `start_seq` on that matches one of the wildcards (none: all), in order, for ever.

    Outlasts reconnects and restarts of the broker. What is republished under `log.` says that there is more to read;
    whoever may not hear it looks every two seconds. At the log's end it looks `pace_s` after the last look at the
    soonest: who can wait reads many messages at once, and takes less from those who write. Raises DirectGetDenied.
    """
    wanted = [] if ">" in subjects else list(subjects)
    news = asyncio.Event()

    async def heard(_: Msg) -> None:
        news.set()

    subscriptions = [await client.subscribe(f"log.{subject}", cb=heard) for subject in wanted or ("*.*.*",)]
    seq = max(1, start_seq)
    try:
        while True:
            news.clear()
            try:
                messages, more = await batch(
                    client, stream, wanted[0] if len(wanted) == 1 else ">", seq, size, _ANSWER_S
                )
            except DirectGetDenied:
                raise
            except DirectGetFailed as error:
                _log.warning("reading interrupted; trying again", stream=stream, error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            for message in messages:
                seq = message.seq + 1
                if len(wanted) < 2 or any(_matches(subject, message.subject) for subject in wanted):
                    yield message
            if not more:
                await asyncio.sleep(pace_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await news.wait()
    finally:
        if not client.is_closed:
            for subscription in subscriptions:
                await subscription.unsubscribe()


async def _one(client: Client, call: str, body: bytes, timeout_s: float) -> Stored | None:
    try:
        with denials(client, call) as denied:
            answer: Msg = await _unless(denied, client.request(call, body, timeout=timeout_s), call)
    except (nats_errors.Error, OSError) as error:
        raise DirectGetFailed(f"no answer to a direct get within {timeout_s:g} s") from error
    if "Nats-Sequence" in (headers := answer.headers or {}):
        return _stored(answer)
    if (status := headers.get("Status")) == "404":
        return None
    raise DirectGetFailed(f"a direct get was refused with status {status}")


async def _unless(denied: asyncio.Future[None], answer: Any, call: str) -> Any:
    """The answer, or DirectGetDenied as soon as the broker refuses the request."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(answer)
    both: set[asyncio.Future[Any]] = {waiting, denied}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if denied.done():
            raise DirectGetDenied(f"the broker does not let this service call {call}")
        return await waiting
    finally:
        if not waiting.done():
            waiting.cancel()
            # Seen to its end: else what it ends with, once the connection is closed, is told as unhandled.
            await asyncio.gather(waiting, return_exceptions=True)


def _stored(answer: Msg) -> Stored:
    headers = answer.headers or {}
    return Stored(
        subject=headers["Nats-Subject"],
        headers={name: value for name, value in headers.items() if name not in _OF_THE_ANSWER},
        data=answer.data,
        seq=int(headers["Nats-Sequence"]),
        stored_at=parse_broker_time(headers["Nats-Time-Stamp"]),
        pending=int(headers.get("Nats-Num-Pending", "0")),
    )


def _matches(wildcard: str, subject: str) -> bool:
    """Whether a subject matches a wildcard of as many tokens, as every subject of the log has three."""
    wanted, found = wildcard.split("."), subject.split(".")
    return len(wanted) == len(found) and all(token in ("*", is_) for token, is_ in zip(wanted, found, strict=True))
