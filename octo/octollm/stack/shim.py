"""Ties a program's life to its parent's, then becomes that program.

Run as ``python -I -S shim.py <parent pid> <signal> <0|1> <argv…>``; the third argument is 1 to run the program as user
and group 65534 of a user namespace of its own. It is a process of its own because the same steps in a ``preexec_fn``
would run Python between fork and exec of a process that may have threads.

Exit status 126: the parent is gone or the kernel refused; 127: the program can't be run. The reason is on stderr.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NOBODY = 65534


def refuse(status: int, reason: str) -> None:
    """End with the reason on stderr, which is the program's log."""
    sys.stderr.write(f"octollm: {reason}\n")
    sys.stderr.flush()
    os._exit(status)


def enter_user_namespace(libc: ctypes.CDLL) -> None:
    """Map our own user and group to 65534 and nothing else: files stay ours, and no capability survives exec."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        refuse(126, f"no user namespace, so this program can't be run by root: {os.strerror(ctypes.get_errno())}")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, line.encode())
        os.close(fd)


def main(argv: list[str]) -> None:
    """Never returns."""
    parent, death_signal, unprivileged, program = int(argv[0]), int(argv[1]), argv[2] == "1", argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    if unprivileged:
        enter_user_namespace(libc)
    # After the namespace: a change of credentials would clear the setting.
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        refuse(126, f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the kernel knew that we want to hear of it
        refuse(126, "the supervisor is gone")
    # Python ignores these two, and an ignored signal stays ignored over exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(program[0], program)  # noqa: S606 - to become the program is the point
    except OSError as error:
        refuse(127, f"{program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
