"""Secrets that a stack makes at its first start and keeps: one file each, mode 0600."""

import os
from pathlib import Path

from octollm.stack.errors import StackError

BYTES = 32


def secret(path: Path) -> str:
    """The secret in ``path``: 32 random bytes as hexadecimal digits, made now if there is no such file.

    Raises StackError when others may read the file, as ssh does with its keys.
    """
    text = _kept(path) if path.exists() else _made(path, os.urandom(BYTES).hex())
    if len(text) != 2 * BYTES:
        raise StackError(
            f"{path} doesn't hold a secret of {BYTES} bytes; restore it, or remove it with what it protects"
        )
    return text


def nkey(path: Path) -> str:
    """The public key of the nkey user whose seed is in ``path``, made now if there is no such file.

    Raises StackError when others may read the file, or when it holds no seed of a user.
    """
    import nkeys  # type: ignore[import-untyped]  # with the cryptography under it, and only a start needs it

    if path.exists():
        seed = _kept(path)
    else:
        seed = _made(path, nkeys.encode_seed(os.urandom(BYTES), nkeys.PREFIX_BYTE_USER).decode())
    try:
        public: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    except (nkeys.NkeysError, ValueError) as error:
        raise StackError(f"{path} doesn't hold the seed of a NATS user; restore it, or remove it") from error
    return public.decode()


def capability(keys_dir: Path) -> tuple[Path, Path]:
    """The files of the key that signs capabilities and of the one that verifies them, made now if there are none.

    Raises StackError when others may read the private key, or when it is none.
    """
    from octollm.events.capability import PRIVATE_PREFIX, KeyUnusable, SigningKey

    private, public = keys_dir / "capability.key", keys_dir / "capability.pub"
    if not private.exists():
        _made(private, PRIVATE_PREFIX + os.urandom(BYTES).hex())
    try:
        text = SigningKey.load(private).public
    except KeyUnusable as error:
        raise StackError(str(error)) from error
    if not public.exists() or public.read_text(encoding="ascii") != text:
        public.write_text(text, encoding="ascii")
    return private, public


def receipt(keys_dir: Path) -> tuple[Path, Path]:
    """The files of the executor's key that signs receipts and of those that verify them, made now if there are none.

    The public file keeps the keys that were in it: receipts of a key that was replaced stay verifiable. Raises
    StackError when others may read the private key, or when it is none.
    """
    from octollm.events.receipt import PRIVATE_PREFIX, KeyUnusable, PublicKeys, public_key

    private, public = keys_dir / "receipt.key", keys_dir / "receipt.pub"
    text = _kept(private) if private.exists() else _made(private, PRIVATE_PREFIX + os.urandom(BYTES).hex())
    try:
        own = public_key(text)
        known = PublicKeys.load([public]) if public.exists() else PublicKeys()
    except KeyUnusable as error:
        raise StackError(f"{private}: {error}") from error
    if own not in known.texts:
        with public.open("a", encoding="ascii") as file:
            file.write(f"{own}\n")
    return private, public


def _made(path: Path, text: str) -> str:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return text


def _kept(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise StackError(f"{path} may be read by others; if it never left this machine, make its mode 0600 (chmod 600)")
    return path.read_text(encoding="ascii").strip()
