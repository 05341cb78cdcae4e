"""The canonical form of JSON (RFC 8785), over which digests are made."""

from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """Plain JSON in canonical form. Whole numbers beyond ±2⁵³ are taken for doubles, as the RFC takes all (3.2.2.3).

    Raises ValueError for what is no JSON.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        return rfc8785.dumps(_as_doubles(value))


def _as_doubles(value: Any) -> Any:
    match value:
        case dict():
            return {name: _as_doubles(item) for name, item in value.items()}
        case list():
            return [_as_doubles(item) for item in value]
        case int() if not isinstance(value, bool):
            return float(value) if abs(value) >= 2**53 else value
        case _:
            return value
