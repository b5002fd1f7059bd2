"""The deterministic student: probabilities by hand, sums to one, and what it does with the unseen."""

import math

import numpy as np
import pytest

from corpusmill.ablation.trigram import TrigramModel
from corpusmill.errors import ConfigError, ModelError

EOD = 0


def by_hand(sequences, n_vocab, u, v, w):
    """Interpolated Witten-Bell from its definition, with dictionaries."""
    padded = [[EOD, EOD, *ids, EOD] for ids in sequences]
    grams = [tuple(p[i : i + 3]) for p in padded for i in range(len(p) - 2)]

    def estimate(context, lower):
        after = [g[2] for g in grams if g[2 - len(context) : 2] == context]
        if not after:
            return lower
        return (after.count(w) + len(set(after)) * lower) / (len(after) + len(set(after)))

    p = estimate((), 1 / n_vocab)
    return estimate((u, v), estimate((v,), p))


def test_probabilities_are_those_of_the_definition():
    sequences = [[1, 2, 3, 1, 2, 4], [2, 3, 1], [5], [1, 2, 3]]
    model = TrigramModel(sequences, 8, EOD)
    ids = [1, 2, 4, 7, 2, 3]
    padded = [EOD, EOD, *ids]
    expected = -sum(math.log(by_hand(sequences, 8, *padded[i : i + 3])) for i in range(len(ids)))
    assert model.nll(ids) == pytest.approx(expected, rel=1e-12)


def test_the_probabilities_of_all_tokens_after_a_context_add_up_to_one():
    model = TrigramModel([[1, 2, 3, 1, 2, 2], [4, 4, 1]], 6, EOD)
    w = np.arange(6)
    for u in range(6):
        for v in range(6):
            assert model._probabilities(np.full(6, u), np.full(6, v), w).sum() == pytest.approx(1.0, abs=1e-12)


def test_a_token_that_was_never_seen_is_finite_and_an_empty_text_costs_nothing():
    model = TrigramModel([[1]], 1000, EOD)
    assert 0 < model.nll([999]) < math.inf
    assert model.nll([]) == 0.0


def test_the_order_of_documents_does_not_matter():
    sequences = [[1, 2, 3], [3, 2, 1], [2, 2]]
    first, second = TrigramModel(sequences, 5, EOD), TrigramModel(sequences[::-1], 5, EOD)
    assert first.nll([1, 2, 2, 4]) == second.nll([1, 2, 2, 4])


def test_nothing_to_count_and_a_vocabulary_beyond_the_keys_are_refused():
    with pytest.raises(ModelError, match="no document"):
        TrigramModel([], 10, EOD)
    with pytest.raises(ConfigError, match="n_vocab=3000000"):
        TrigramModel([[1]], 3_000_000, EOD)
