"""The base of every carrier type."""

import msgspec


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value of the contract: immutable, keyword-only, unknown fields refused on decoding."""
