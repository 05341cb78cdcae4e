"""Whether what the broker acknowledges is on disk: only its own monitoring can say."""

import httpx

from octollm.events.config import NatsSettings

_PATIENCE_S = 1.0


async def acks(settings: NatsSettings) -> str:
    """For people and for `/ready`: `fsynced`, `not fsynced: …`, or `unknown: …` with the reason."""
    if settings.monitor_url is None:
        return "unknown: OCTO_NATS__MONITOR_URL is not set"
    try:
        async with httpx.AsyncClient(timeout=_PATIENCE_S, trust_env=False) as http:
            answer = await http.get(f"{settings.monitor_url.rstrip('/')}/jsz", params={"config": "1"})
        is_on = answer.raise_for_status().json()["config"].get("sync_always", False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        return f"unknown: the broker's monitoring does not say ({type(error).__name__})"
    if is_on:
        return "fsynced"
    return "not fsynced: a power cut loses what was acknowledged (sync_interval: always prevents it)"
