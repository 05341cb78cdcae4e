"""A secret in the forms in which it could have slipped through."""

import base64
from urllib.parse import quote


def disguises(secret: str) -> dict[str, bytes]:
    """By name, what to look for in lower-cased bytes: plain, percent-encoded, hexadecimal, base64 at each alignment."""
    raw = secret.lower().encode()
    found = {
        "plain": raw,
        "percent-encoded": quote(secret, safe="").lower().encode(),
        "hexadecimal": raw.hex().encode(),
    }
    for shift in range(3):
        # Only whole groups of three bytes: what stands before and after the secret changes the others.
        encoded = base64.b64encode(b"\0" * shift + secret.encode())
        whole = encoded[4 * (shift > 0) : 4 * ((shift + len(raw)) // 3)]
        found[f"base64 at offset {shift}"] = whole.lower()
    return found


def seen_in(content: bytes, secret: str) -> str | None:
    """The form in which the secret stands in the content, if it does."""
    lowered = content.lower()
    return next((name for name, needle in disguises(secret).items() if needle in lowered), None)
