"""What can go wrong with a local stack. Every message says what happened and what to do next.

StackError
├── Missing          a program that the stack should start isn't installed
├── PortBusy         a port is taken, and by whom
├── AlreadyRunning   another stack holds the data directory
├── NotRunning       no stack runs on the data directory
├── Unsuitable       a server runs, but not as it must, and waiting won't change it
├── NotReady         a program ended, or didn't answer in time, while it was being started or stopped
└── GaveUp           a program died too often, and everything was stopped
"""


class StackError(Exception):
    """The stack can't do what was asked of it."""


class Missing(StackError):
    """A program that the stack should start isn't installed."""


class PortBusy(StackError):
    """A port is taken.

    ``owner`` names the process that listens there, as far as the kernel tells this user.
    """

    def __init__(self, name: str, port: int, owner: str | None, advice: str) -> None:
        held = f"used by {owner}" if owner else "used by a process of another user"
        super().__init__(f"{name}: port {port} is {held}; {advice}")
        self.name = name
        self.port = port
        self.owner = owner


class AlreadyRunning(StackError):
    """Another stack holds the data directory."""


class NotRunning(StackError):
    """No stack runs on the data directory."""


class Unsuitable(StackError):
    """A server runs, but not as it must: waiting won't change it."""


class NotReady(StackError):
    """A program ended, or didn't answer before its deadline."""


class GaveUp(StackError):
    """A program died too often within a minute; the stack was stopped."""
