"""The programs' logs, as they were written."""

import asyncio
import contextlib
from pathlib import Path

from octollm.cli.failure import Exit, Failure
from octollm.cli.terminal import Terminal, printable
from octollm.stack import logs


def show(terminal: Terminal, data_dir: Path, name: str | None, *, lines: int, follow: bool) -> None:
    """The last `lines` lines of each log, or of one; then what is written, until interrupted. Raises Failure."""
    files = logs.log_files(data_dir)
    if not files:
        raise Failure(f"there are no logs in {data_dir}", "start a stack with `octo up`", Exit.INFRASTRUCTURE)
    if name is not None and name not in files:
        raise Failure.usage(f"there is no log of {name!r}", f"there are: {', '.join(files)}")
    chosen = files if name is None else {name: files[name]}
    width = max(map(len, chosen)) if name is None else 0

    def put(program: str, line: str) -> None:
        if terminal.as_json:
            terminal.line({"name": program, "line": line})
        else:
            terminal.print(f"{program:<{width}} │ {printable(line)}" if width else printable(line))

    if not follow:
        for program, path in chosen.items():
            for line in logs.tail(path, lines):
                put(program, line)
        return

    async def run() -> None:
        async for program, line in logs.follow(chosen.values(), lines):
            put(program, line)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
