"""Similarities are those of plain sets of word runs, in any blocks."""

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.dedup.shingles import english_words, make_shingler
from corpusmill.dedup.similarity import jaccard, similarities, similarity
from corpusmill.dedup.simplification import simplify
from corpusmill.errors import DataError


@pytest.fixture(scope="module")
def shingler():
    return make_shingler("compiled")


WORDS = english_words()


def runs(text):
    found = WORDS(simplify(text))
    return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}


def random_texts(n, seed=0):
    rng = np.random.default_rng(seed)
    vocabulary = ["alpha", "beta", "can't", "delta", "12.5", "caf\u00e9", "Zeta!"]
    return [" ".join(rng.choice(vocabulary, rng.integers(0, 60))) for _ in range(n)]


@pytest.mark.parametrize("block_bytes", [1, 500, 10_000_000])
def test_similarities_are_those_of_plain_sets(shingler, block_bytes):
    texts = random_texts(30)
    texts += [texts[3] + " alpha beta", texts[3], texts[4][: len(texts[4]) // 2]]
    rng = np.random.default_rng(1)
    pairs = np.concatenate([rng.integers(0, len(texts), (60, 2)), [[3, 30], [3, 31], [4, 32], [5, 5]]])
    found = similarities(pa.array(texts, pa.large_string()), pairs, shingler, block_bytes=block_bytes)
    for value, (left, right) in zip(found.tolist(), pairs.tolist(), strict=True):
        a, b = runs(texts[left]), runs(texts[right])
        expected = len(a & b) / len(a | b) if a | b else float(simplify(texts[left]) == simplify(texts[right]))
        assert value == pytest.approx(expected)
    assert found[61] == 1.0
    assert 0 < found[60] < 1


def test_both_engines_and_string_types_give_equal_similarities(shingler):
    texts, pairs = random_texts(6, 2), np.array([[0, 1], [2, 3], [4, 5], [0, 0]])
    expected = similarities(pa.array(texts, pa.large_string()), pairs, make_shingler("reference"))
    assert similarities(pa.array(texts, pa.string()), pairs, shingler).tolist() == expected.tolist()


def test_texts_without_shingles_are_alike_where_their_words_are(shingler):
    assert similarity("One, two!", "one  two", shingler) == 1.0
    assert similarity("one two", "one three", shingler) == 0.0
    assert similarity("", " ", shingler) == 1.0
    assert similarity("", "one two three four five", shingler) == 0.0
    assert jaccard(np.empty(0, np.uint64), np.empty(0, np.uint64)) == 0.0


def test_no_pairs_need_no_texts(shingler):
    assert similarities(pa.array([], pa.large_string()), np.empty((0, 2)), shingler).shape == (0,)


def test_pairs_must_name_texts_that_are_there(shingler):
    texts = pa.array(["a b c d e", None], pa.large_string())
    with pytest.raises(DataError, match="expected 0 to 1"):
        similarities(texts, np.array([[0, 2]]), shingler)
    with pytest.raises(DataError, match="text 1 of a pair is null"):
        similarities(texts, np.array([[0, 1]]), shingler)
