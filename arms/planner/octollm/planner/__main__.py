"""`python -m octollm.planner`: the planner as a service, with /health, /ready and /metrics on loopback."""

import sys
from contextlib import AsyncExitStack
from functools import partial

import uvloop
from nats import errors as nats_errors

from octollm.events import bus
from octollm.events.config import ConfigError, NatsSettings, load
from octollm.events.durability import acks
from octollm.events.log import Log
from octollm.events.service import Check, Service, configure_logging
from octollm.planner.intake import Intake
from octollm.planner.llm.planner import Limits, ModelPlanner
from octollm.planner.planning import Planning
from octollm.planner.screening import Screen
from octollm.planner.settings import PlannerSettings

NAME = "planner"
DRAIN_S = 8.0


async def serve(settings: PlannerSettings, nats: NatsSettings) -> None:
    """Until SIGTERM or SIGINT; what was taken from the broker by then is finished, or handed back after DRAIN_S.

    Raises ConfigError for a provider that can't be used, before anything is started.
    """
    async with AsyncExitStack() as resources:
        model, checks = None, dict[str, Check]()
        if settings.provider != "offline":
            # Here, not above: the SDK costs a second and 25 MB, and the offline planner needs none of it.
            from octollm.planner.llm.openai_chat import OpenAIChat

            provider = OpenAIChat(settings.chosen_model(), settings.key(), settings.base_url, settings.provider)
            screen = Screen(settings.reflex_url)
            resources.push_async_callback(provider.close)
            resources.push_async_callback(screen.close)
            checks["reflex"] = screen.ready
            limits = Limits(
                call_seconds=settings.call_seconds,
                plan_seconds=settings.plan_seconds,
                max_output_tokens=settings.max_output_tokens,
            )
            model = ModelPlanner(provider, screen, limits)
        client = await bus.connect(nats, NAME)
        resources.push_async_callback(client.close)

        async def connected() -> None:
            if not client.is_connected:
                raise ConnectionError("not connected; reconnecting")
            await client.flush(1)

        intake = Intake(client, Log(client, NAME), Planning(model), settings.concurrency)
        checks |= {"nats": connected, "intake": intake.check}
        service = Service(NAME, settings.port, checks, drain_s=DRAIN_S, details={"acks": partial(acks, nats)})
        await service.run(intake.run(service.stopping))


def main() -> int:
    """The exit status: 0 after an orderly end, 2 for a configuration that can't be used, 1 without a broker."""
    configure_logging(NAME)
    try:
        settings, nats = load(NAME, PlannerSettings), load("nats", NatsSettings)
        uvloop.run(serve(settings, nats))
    except ConfigError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    except (OSError, nats_errors.Error) as error:
        sys.stderr.write(f"{NAME}: {str(error) or type(error).__name__}; is NATS up? (OCTO_NATS__URL)\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
