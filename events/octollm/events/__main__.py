"""`python -m octollm.events`: makes the broker's streams and consumers, or checks them.

For deployments whose servers `octo up` does not start.
"""

import asyncio
import sys

from octollm.events.config import ConfigError, NatsSettings, load
from octollm.events.streams import BootstrapFailed, StreamDrift, ensure


def main() -> None:
    """Exits 0 when everything is as streams.json says, 75 with the reason otherwise."""
    try:
        asyncio.run(ensure(load("nats", NatsSettings)))
    except (BootstrapFailed, ConfigError, StreamDrift, OSError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(75) from error


if __name__ == "__main__":
    main()
