"""Runs a stack as ``octo up`` does, for tests that kill it: ``supervising.py <data dir> <servers> [fake's word…]``.

Prints a line of JSON for every step of progress.
"""

import asyncio
import json
import sys
from pathlib import Path

from octollm.stack import Progress, Service, Stack, StackError, StackOptions

FAKE = Path(__file__).with_name("fake_service.py")


def show(progress: Progress) -> None:
    print(json.dumps([progress.name, progress.state, progress.detail]), flush=True)


async def main(data_dir: Path, servers: list[str], words: list[str]) -> None:
    fake = Service(name="fake", port=1, argv=("python", str(FAKE), *words), drain_seconds=60)
    options = StackOptions(
        data_dir=data_dir,
        ports="free",
        servers=frozenset(servers),  # type: ignore[arg-type]
        services=(fake,),
        bootstrap=None,
        progress=show,
    )
    await Stack(options).run()


try:
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]))
except StackError as error:
    sys.exit(f"stack: {error}")
