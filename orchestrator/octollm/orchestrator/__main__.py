"""`python -m octollm.orchestrator`: the saga as a service, with /health, /ready and /metrics on loopback."""

import sys
from datetime import timedelta
from functools import partial

import uvloop
from nats import errors as nats_errors

from octollm.events import bus
from octollm.events.capability import KeyUnusable, SigningKey
from octollm.events.config import ConfigError, NatsSettings, load
from octollm.events.durability import acks
from octollm.events.log import Log
from octollm.events.service import Service, configure_logging
from octollm.orchestrator.intake import Intake
from octollm.orchestrator.recovery import Recovery
from octollm.orchestrator.runner import Runner
from octollm.orchestrator.settings import OrchestratorSettings
from octollm.orchestrator.timers import Timers

NAME = "orchestrator"


async def serve(settings: OrchestratorSettings, nats: NatsSettings, key: SigningKey) -> None:
    """Until SIGTERM or SIGINT; what was taken from the broker by then is finished first."""
    client = await bus.connect(nats, NAME)

    async def connected() -> None:
        if not client.is_connected:
            raise ConnectionError("not connected; reconnecting")
        await client.flush(1)

    try:
        runner = Runner(
            Log(client, NAME),
            Timers(client),
            grace=timedelta(seconds=settings.grace_seconds),
            cache_size=settings.cache_size,
            sign=key.sign,
        )
        intake = Intake(client, runner, Recovery(client, runner))
        checks = {"nats": connected, "intake": intake.check}
        service = Service(NAME, settings.port, checks, details={"acks": partial(acks, nats)})
        await service.run(intake.run(service.stopping))
    finally:
        await client.close()


def main() -> int:
    """The exit status: 0 after an orderly end, 2 for a configuration that can't be used, 1 without a broker."""
    configure_logging(NAME)
    try:
        settings, nats = load(NAME, OrchestratorSettings), load("nats", NatsSettings)
        key = SigningKey.load(settings.capability_key_file)
    except (ConfigError, KeyUnusable) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    try:
        uvloop.run(serve(settings, nats, key))
    except (OSError, nats_errors.Error) as error:
        sys.stderr.write(f"{NAME}: {str(error) or type(error).__name__}; is NATS up? (OCTO_NATS__URL)\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
