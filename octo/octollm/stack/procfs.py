"""What /proc tells: who a process is, who listens on a port, what is left of a stack. Linux only (proc(5))."""

from collections.abc import Iterator
from pathlib import Path

MARK = "_OCTOLLM_STACK"
"""Environment variable that every process of a stack, and what it spawns, inherits."""

LISTEN = "0A"


def pids() -> Iterator[int]:
    """Every process of this pid namespace."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none, or only a zombie.

    With the pid it names one process of this boot: pids are reused.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Names this boot: ticks since another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def command(pid: int, limit: int = 120) -> str:
    """The process's command line on one line, cut to ``limit`` characters; empty when it is gone."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        line = line or Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return line if len(line) <= limit else line[: limit - 1] + "…"


def listener(port: int) -> str | None:
    """``pid N: command`` of the process that listens on TCP ``port``; None when nobody does or we may not know."""
    sockets = _listening_inodes(port)
    if not sockets:
        return None
    for pid in pids():
        try:
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                if str(fd.readlink()) in sockets:
                    return f"pid {pid}: {command(pid)}"
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    return inodes


def marked(stack_id: str) -> set[int]:
    """Processes that a stack, or anything it started, left behind."""
    needle = f"{MARK}={stack_id}".encode()
    found = set()
    for pid in pids():
        try:
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and started(pid) is not None:
                found.add(pid)
        except OSError:
            continue
    return found


def working_in(directory: Path, program: Path) -> set[int]:
    """Processes of ``program`` whose working directory is ``directory``.

    Postgres writes its process titles over its environment, so its processes carry no mark; each of them stays in the
    data directory.
    """
    found = set()
    for pid in pids():
        try:
            if Path(f"/proc/{pid}/cwd").readlink() == directory and Path(f"/proc/{pid}/exe").readlink() == program:
                found.add(pid)
        except OSError:
            continue
    return found
