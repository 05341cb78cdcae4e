"""Named points between an intent and its acknowledgement, at which a test has a service die as by `kill -9`.

`OCTO_FAIL_POINT=<name>[:n]` arms one: the n-th time (default 1) that it is reached, the process sends itself SIGKILL:
nothing is flushed, drained or handed back. Without the variable a point costs a comparison. The stack passes it on to
nobody by itself (`Stack.kill` has the one way). A point is named `<service>.<what has just happened>`.
"""

import os
import signal
import sys

VARIABLE = "OCTO_FAIL_POINT"

_armed, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Ends the process where the point is armed and has been reached often enough; else does nothing."""
    if name == _armed:
        _die(name)


def _die(name: str) -> None:
    global _left
    _left -= 1
    if _left == 0:
        sys.stderr.write(f"fail point {name}: this process kills itself\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
