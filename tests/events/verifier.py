"""A verifier of capabilities, short and strict: what the executor does, in the library of the other language."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from biscuit_auth import (
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitSerializationError,
    BiscuitValidationError,
    Fact,
    PublicKey,
)

FOLDER = Path(__file__).parents[2] / "events" / "corpus" / "capability"
DIGESTS: list[dict[str, Any]] = json.loads((FOLDER / "digests.json").read_bytes())
TOKENS: dict[str, Any] = json.loads((FOLDER / "tokens.json").read_bytes())


def grants(token: str, expected: dict[str, Any], at: datetime, public_key: str = TOKENS["public_key"]) -> bool:
    """Whether the authority states every expected fact and no check fails at this time."""
    try:
        biscuit = Biscuit.from_base64(token, PublicKey(public_key))
    except (BiscuitValidationError, BiscuitSerializationError):
        return False
    limits = expected["limits"]
    facts = [f"{name}({{{name}}})" for name in expected if name != "limits"]
    facts += [f'limit("{name}", {{{name}}})' for name in limits]
    values = {name: value for name, value in expected.items() if name != "limits"} | limits
    builder = AuthorizerBuilder(f"allow if {', '.join(facts)};", values)
    builder.add_fact(Fact("time({now})", {"now": at}))
    # The default of a millisecond refuses good tokens on a busy machine; the library's stubs lack both.
    generous = builder.limits()  # type: ignore[attr-defined]
    generous.max_time = timedelta(seconds=10)
    builder.set_limits(generous)  # type: ignore[attr-defined]
    try:
        builder.build(biscuit).authorize()
    except AuthorizationError:
        return False
    return True
