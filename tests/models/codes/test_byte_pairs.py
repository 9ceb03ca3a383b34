"""Byte pairs: those of the library, and with dropout of merges."""

import sys
from random import Random

import pytest
import torch

from dgm_bench.data.captions import CAPTIONS, KNOWN
from dgm_bench.errors import DeclarationError, UsageError
from dgm_bench.models.codes.priors.byte_pairs import DRAWS, BytePairs, segmentations


@pytest.fixture(scope="module")
def pairs():
    return BytePairs(CAPTIONS[:KNOWN], 64)


def test_without_dropout_tokens_are_the_librarys(pairs):
    for text in (*CAPTIONS, "an eight of medium height", "", "zwölf"):
        assert pairs.encode_with_dropout(text, 0.0, Random(0)) == pairs.encode(text)


def test_texts_are_lower_case_and_come_back(pairs):
    assert pairs.encode("A Bold SEVEN, leaning right") == pairs.encode(
        "a bold seven, leaning right"
    )
    for text in CAPTIONS:
        assert pairs.decode(pairs.encode(text)) == text


def test_all_merges_dropped_leave_characters(pairs):
    tokens = pairs.encode_with_dropout("a thin one", 1.0, Random(0))
    assert "".join(pairs.pieces[token] for token in tokens) == "▁a▁thin▁one"
    assert {len(pairs.pieces[token]) for token in tokens} == {1}


def test_a_merge_is_dropped_as_often_as_said():
    """The one merge of a word of one letter: it is tried once."""
    pairs, noise = BytePairs(["a"], 4), Random(1)
    drawn = [len(pairs.encode_with_dropout("a", 0.1, noise)) for _ in range(4_000)]
    assert sum(n == 2 for n in drawn) / 4_000 == pytest.approx(0.1, abs=0.02)


def test_pairs_are_the_same_whoever_learns_them():
    assert BytePairs(CAPTIONS, 50).pieces == BytePairs(CAPTIONS, 50).pieces
    assert len(BytePairs(CAPTIONS, 50).pieces) == 50
    assert len(BytePairs(["a b"], 50).pieces) < 50


def test_segmentations_begin_with_that_without_dropout(pairs):
    plain = segmentations(pairs, CAPTIONS, 16, 64, 0.0)
    assert plain.shape == (90, 1, 16)
    drawn = segmentations(pairs, CAPTIONS, 24, 64, 0.1)
    assert drawn.shape == (90, 1 + DRAWS, 24)
    assert torch.equal(drawn[:, 0, :16], plain[:, 0])
    assert torch.equal(drawn, segmentations(pairs, CAPTIONS, 24, 64, 0.1))
    assert (drawn[:, 1:] != drawn[:, :1]).any(-1).double().mean() > 0.05
    for text, rows in zip(CAPTIONS, drawn.tolist(), strict=True):
        assert {pairs.decode([n for n in row if n < 64]) for row in rows} == {text}


def test_draws_that_are_too_long_are_replaced(pairs):
    length = int((segmentations(pairs, CAPTIONS, 16, 64, 0.0) < 64).sum(-1).max())
    drawn = segmentations(pairs, CAPTIONS, length, 64, 1.0)
    assert torch.equal(drawn, drawn[:, :1].expand(-1, 1 + DRAWS, -1))


def test_what_does_not_fit_is_told(pairs):
    with pytest.raises(DeclarationError, match=r"tokens, and the model has places for 3"):
        segmentations(pairs, CAPTIONS[:1], 3, 64, 0.0)
    with pytest.raises(DeclarationError, match="vocabulary 5: is too small"):
        BytePairs(CAPTIONS, 5)


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UsageError, match=r"pip install 'dgm-bench\[text\]'"):
        BytePairs(["a"], 4)
