"""Criteria in words."""

import pytest

from octollm.events.carrier import (
    ContainsCriterion,
    Criterion,
    EqualsCriterion,
    ExitCodeCriterion,
    FileExistsCriterion,
    JsonPathCriterion,
    RegexCriterion,
)
from octollm.orchestrator.result import in_words

WORDS: list[tuple[Criterion, str]] = [
    ("is polite", "is polite"),
    (ContainsCriterion(text="hello"), "contains 'hello'"),
    (ContainsCriterion(text="hello", path="a.txt"), "file a.txt contains 'hello'"),
    (EqualsCriterion(text="3", step="count"), "output of step count equals '3'"),
    (RegexCriterion(pattern="^a+$"), "matches /^a+$/"),
    (JsonPathCriterion(query="$.n", equals={"a": [1]}, path="r.json"), 'file r.json has {"a":[1]} at $.n'),
    (ExitCodeCriterion(code=3), "exits with 3"),
    (FileExistsCriterion(path="out/a.txt"), "file out/a.txt exists"),
]


@pytest.mark.parametrize(("criterion", "words"), WORDS)
def test_every_kind_has_words(criterion: Criterion, words: str) -> None:
    assert in_words(criterion) == words


def test_long_ones_are_cut_visibly() -> None:
    text = in_words(EqualsCriterion(text="x" * 4000))
    assert len(text) == 500
    assert text.endswith("x…")
