"""The key pair of capabilities: made once, kept, and never taken from a file that others may read."""

from pathlib import Path

import pytest

from octollm.events.capability import SigningKey
from octollm.stack import StackError
from octollm.stack.keys import capability


def test_a_pair_is_made_once_and_kept(tmp_path: Path) -> None:
    private, public = capability(tmp_path)
    before = private.read_text(), public.read_text()
    assert before[0].startswith("ed25519-private/")
    assert before[1] == SigningKey.load(private).public
    assert private.stat().st_mode & 0o777 == 0o600
    assert capability(tmp_path) == (private, public)
    assert (private.read_text(), public.read_text()) == before


def test_two_stacks_have_two_pairs(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        texts += [path.read_text() for path in capability(tmp_path / name)]
    assert len(set(texts)) == 4


@pytest.mark.parametrize("left", [None, "", "ed25519/" + "1" * 64])
def test_the_public_key_follows_the_private_one(tmp_path: Path, left: str | None) -> None:
    private, public = capability(tmp_path)
    public.unlink() if left is None else public.write_text(left)
    capability(tmp_path)
    assert public.read_text() == SigningKey.load(private).public


def test_a_private_key_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    private, _ = capability(tmp_path)
    private.chmod(0o644)
    with pytest.raises(StackError, match="chmod 600"):
        capability(tmp_path)


def test_something_else_in_its_place_is_not_replaced(tmp_path: Path) -> None:
    private, _ = capability(tmp_path)
    private.write_text("canary")
    with pytest.raises(StackError, match="holds no Ed25519 private key") as caught:
        capability(tmp_path)
    assert "canary" not in str(caught.value)
    assert private.read_text() == "canary"
