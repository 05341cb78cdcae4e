"""Which TCP ports on 127.0.0.1 a stack uses: fixed ones that must be free, or free ones that no other stack takes."""

import errno
import random
import socket
from collections.abc import Mapping
from typing import Literal

from octollm.stack import procfs
from octollm.stack.errors import PortBusy, StackError

HOST = "127.0.0.1"

DEFAULTS: Mapping[str, int] = {"nats": 4222, "postgres": 5433, "valkey": 6380}
"""NATS has its usual port, which its tools try first; the other two keep clear of a server that may run already."""

FREE = range(20000, 32000)
"""Below the kernel's ephemeral range (ip_local_port_range), so that no outgoing connection sits on one of them."""

ATTEMPTS = 200

Policy = Literal["default", "free"] | Mapping[str, int]
"""``default``: the fixed ports; ``free``: any; a mapping: these ports by name, the fixed ones for the rest."""


class Ports:
    """The ports of one stack.

    A free port is claimed by a socket in the abstract namespace until ``release``: unlike a bound and closed TCP port,
    it can't go to another stack before the server has bound it, and the claim ends with the process (unix(7)).
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._claims: list[socket.socket] = []

    def fixed(self, name: str, default: int) -> int:
        """The port ``name`` uses by this policy; free ones are chosen and claimed.

        Raises PortBusy when the port is taken.
        """
        if self._policy == "free":
            return self.free()
        port = default if self._policy == "default" else self._policy.get(name, default)
        if not _bindable(port, reuse=True):
            raise PortBusy(name, port, procfs.listener(port), _advice(name))
        return port

    def free(self) -> int:
        """Choose and claim a free port."""
        for _ in range(ATTEMPTS):
            port = random.SystemRandom().choice(FREE)
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0octollm-port-{port}")
            except OSError:
                claim.close()
                continue
            if _bindable(port, reuse=False):
                self._claims.append(claim)
                return port
            claim.close()
        raise StackError(
            f"no free TCP port among {FREE.start}–{FREE.stop - 1} after {ATTEMPTS} attempts; end what holds them"
        )

    def release(self) -> None:
        """Give every claim back."""
        while self._claims:
            self._claims.pop().close()


def _bindable(port: int, *, reuse: bool) -> bool:
    """With ``reuse``, connections of an earlier server that are still in TIME_WAIT don't count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if reuse:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(f"port {port} needs privileges; choose one above 1023") from error
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def _advice(name: str) -> str:
    shared = {"nats": "OCTO_NATS__URL", "postgres": "OCTO_POSTGRES__URL", "valkey": "OCTO_REDIS__URL"}
    if name in shared:
        return f"end it, choose another port, or set {shared[name]} to use a server that runs already"
    return f"end it, or choose another port (OCTO_{name.upper()}__PORT)"
