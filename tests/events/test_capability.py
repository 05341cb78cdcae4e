"""Capabilities against the vectors: what the other language's verifier reads is what is signed here."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from biscuit_auth import Biscuit, PublicKey

from octollm.events import schema
from octollm.events.capability import Grant, KeyUnusable, SigningKey, action_digest
from octollm.events.carrier import Action, Effect, Limits, Purpose, Step
from tests.events.verifier import DIGESTS, TOKENS, grants

KEY = SigningKey(TOKENS["private_key"])
TASK = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21"
STEP = msgspec.convert(schema.documents()["step.dispatched"]["examples"][0]["step"], Step)
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def grant(step: Step = STEP, expires: datetime = NOON, **fields: Any) -> Grant:
    given: dict[str, Any] = {
        "audience": "executor",
        "task_id": TASK,
        "plan_version": 1,
        "attempt": 1,
        "purpose": Purpose.run,
        **fields,
    }
    return Grant(step=step, expires=expires, **given)


def expected(step: Step, **fields: Any) -> dict[str, Any]:
    return {
        "audience": "executor",
        "task": TASK,
        "plan": 1,
        "step": step.id,
        "attempt": 1,
        "purpose": "run",
        "action": action_digest(step.action),
        "effect": step.effect.value,
        "limits": msgspec.to_builtins(step.limits),
        **fields,
    }


@pytest.mark.parametrize("case", DIGESTS, ids=lambda case: case["name"])
def test_an_action_has_one_digest(case: dict[str, Any]) -> None:
    assert action_digest(msgspec.convert(case["action"], Action)) == case["digest"]


@pytest.mark.parametrize("case", TOKENS["cases"], ids=lambda case: case["name"])
def test_a_token_grants_what_it_says_and_no_more(case: dict[str, Any]) -> None:
    assert grants(case["token"], case["expected"], datetime.fromisoformat(case["at"])) is case["granted"]


def test_the_public_key_belongs_to_the_private_one() -> None:
    assert KEY.public == TOKENS["public_key"]


def test_what_is_signed_is_granted() -> None:
    step = msgspec.structs.replace(
        STEP,
        id="s" * 40,
        effect=Effect.side_effecting,
        limits=Limits(wall_ms=300_000, memory_bytes=4_294_967_296, output_bytes=16_777_216),
    )
    token = KEY.sign(grant(step, audience="executor/execute", plan_version=100, attempt=100))
    wanted = expected(step, audience="executor/execute", plan=100, attempt=100)
    assert grants(token, wanted, NOON - timedelta(seconds=1))
    assert not grants(token, wanted | {"attempt": 99}, NOON - timedelta(seconds=1))
    assert 200 <= len(token) <= 4096, "the schema's bounds"


def test_a_token_states_what_the_vectors_state() -> None:
    signed = Biscuit.from_base64(KEY.sign(grant(expires=NOON + timedelta(seconds=45))), PublicKey(KEY.public))
    vector = Biscuit.from_base64(TOKENS["cases"][0]["token"], PublicKey(KEY.public))
    assert signed.block_source(0) == vector.block_source(0)
    assert signed.block_count() == 1


@pytest.mark.parametrize(("fraction", "lasts"), [(0, 0), (1, 1), (500_000, 1), (999_999, 1)])
def test_a_second_that_has_begun_is_granted_to_its_end(fraction: int, lasts: int) -> None:
    token = KEY.sign(grant(expires=NOON.replace(microsecond=fraction)))
    end = NOON + timedelta(seconds=lasts)
    assert grants(token, expected(STEP), end - timedelta(seconds=1))
    assert not grants(token, expected(STEP), end)


def test_no_two_tokens_are_equal() -> None:
    assert KEY.sign(grant()) != KEY.sign(grant())


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "capability.key"
    with pytest.raises(KeyUnusable, match="can't be read"):
        SigningKey.load(path)
    path.write_text(TOKENS["private_key"] + "\n")
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        SigningKey.load(path)
    path.chmod(0o600)
    assert SigningKey.load(path).public == TOKENS["public_key"]


@pytest.mark.parametrize(
    "text", ["", "secret", "ed25519-private/zz", "ed25519/" + "1" * 64, "secp256r1-private/" + "1" * 64, "ä" * 40]
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "capability.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="holds no Ed25519 private key") as caught:
        SigningKey.load(path)
    assert not text or text not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    assert TOKENS["private_key"].removeprefix("ed25519-private/") not in repr(KEY) + str(KEY) + repr(vars(KEY).keys())
