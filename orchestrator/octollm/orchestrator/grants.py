"""Grants: the edge at which a decision becomes an event. A dispatch gets its capability here, and nowhere else."""

from collections.abc import Callable
from datetime import datetime

from msgspec import structs

from octollm.events.capability import Grant
from octollm.events.carrier import StepDispatched
from octollm.events.envelope import NewEvent
from octollm.orchestrator.saga import Intent

Sign = Callable[[Grant], str]
"""Signs a grant; `SigningKey.sign`, or a fixed token where a run must be the same to the byte."""


def granted(task_id: str, intent: Intent, sign: Sign) -> NewEvent:
    """The event of an intent. A dispatch may do what its step says, on this attempt, until its deadline."""
    payload = intent.payload
    if isinstance(payload, StepDispatched):
        grant = Grant(
            audience=payload.step.arm,
            task_id=task_id,
            plan_version=payload.plan_version,
            attempt=payload.attempt,
            purpose=payload.purpose,
            step=payload.step,
            expires=datetime.fromisoformat(payload.deadline),
        )
        payload = structs.replace(payload, capability=sign(grant))
    return NewEvent(payload=payload, causation_id=intent.causation_id, key=intent.key, traceparent=intent.traceparent)
