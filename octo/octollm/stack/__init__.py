"""The local stack: NATS, Postgres and a Redis-protocol server from their wheels, and OctoLLM's services, supervised."""

from octollm.stack.errors import AlreadyRunning, GaveUp, Missing, NotReady, NotRunning, PortBusy, StackError, Unsuitable
from octollm.stack.options import Progress, StackOptions
from octollm.stack.program import State
from octollm.stack.services import SERVICES, Service, Wiring
from octollm.stack.stack import Stack
from octollm.stack.state import ProcessState, StackState

__all__ = [
    "SERVICES",
    "AlreadyRunning",
    "GaveUp",
    "Missing",
    "NotReady",
    "NotRunning",
    "PortBusy",
    "ProcessState",
    "Progress",
    "Service",
    "Stack",
    "StackError",
    "StackOptions",
    "StackState",
    "State",
    "Unsuitable",
    "Wiring",
]
