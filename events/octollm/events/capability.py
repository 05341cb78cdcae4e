"""Capability tokens: what one attempt of one step may do, signed (docs/decisions/0009-capability-tokens.md).

A token is a Biscuit whose authority block states the grant as facts, and a check that bounds its time. This is the
side that signs; the executor verifies.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
from biscuit_auth import BiscuitBuilder, KeyPair, PrivateKey

from octollm.events.canonical import canonical
from octollm.events.carrier import Action, Purpose, Step

EXECUTE = "executor/execute"
"""Audience of tokens for the executor's HTTP endpoint; a dispatch's is its step's arm."""

ROOT_KEY_ID = 0
"""Says which public key verifies; there is one so far."""

PRIVATE_PREFIX = "ed25519-private/"

_BLOCK = """
audience({audience});
task({task});
plan({plan});
step({step});
attempt({attempt});
purpose({purpose});
action({action});
effect({effect});
"""
_EXPIRY = "check if time($now), $now < {expiry};"


class KeyUnusable(ValueError):
    """A key file that is missing, may be read by others, or holds no private key; never says what is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One attempt of one step, by one arm, before a time."""

    audience: str
    task_id: str
    plan_version: int
    attempt: int
    purpose: Purpose
    step: Step
    expires: datetime
    """With a zone. A token's dates are whole seconds: the rest of a second is granted too."""


class SigningKey:
    """The private key of an Ed25519 pair. Its text appears in no message of this class."""

    def __init__(self, text: str) -> None:
        """`text`: `ed25519-private/` and 64 hexadecimal digits, as Biscuit libraries write it. Raises ValueError."""
        if not text.startswith(PRIVATE_PREFIX):
            raise ValueError("no Ed25519 private key")
        self._key = PrivateKey(text)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key in a file that only its owner may read; raises KeyUnusable."""
        try:
            if path.stat().st_mode & 0o077:
                raise KeyUnusable(f"{path} may be read by others; make its mode 0600 (chmod 600)")
            text = path.read_bytes().decode("ascii", errors="replace").strip()
        except OSError as error:
            raise KeyUnusable(f"{path} can't be read: {error.strerror}; octo up makes it") from error
        try:
            return cls(text)
        except ValueError:
            raise KeyUnusable(f"{path} holds no Ed25519 private key; restore it") from None

    @property
    def public(self) -> str:
        """What verifies, `ed25519/` and 64 hexadecimal digits."""
        return str(KeyPair.from_private_key(self._key).public_key)

    def sign(self, grant: Grant) -> str:
        """The token, URL-safe base64. No two are equal, not even for the same grant."""
        limits: dict[str, int] = msgspec.to_builtins(grant.step.limits)
        # Names of limits are the schema's, never a caller's text.
        facts = "".join(f'limit("{name}", {{{name}}});\n' for name in limits)
        values: dict[str, Any] = {
            "audience": grant.audience,
            "task": grant.task_id,
            "plan": grant.plan_version,
            "step": grant.step.id,
            "attempt": grant.attempt,
            "purpose": grant.purpose.value,
            "action": action_digest(grant.step.action),
            "effect": grant.step.effect.value,
            **limits,
            "expiry": _up_to_seconds(grant.expires),
        }
        builder = BiscuitBuilder(_BLOCK + facts + _EXPIRY, values)
        builder.set_root_key_id(ROOT_KEY_ID)
        return builder.build(self._key).to_base64()


def action_digest(action: Action) -> str:
    """SHA-256, hexadecimal, of the action's canonical form (RFC 8785)."""
    return hashlib.sha256(canonical(msgspec.to_builtins(action))).hexdigest()


def _up_to_seconds(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return whole if whole == moment else whole + timedelta(seconds=1)
