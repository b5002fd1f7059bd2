"""The deterministic student: an interpolated Witten-Bell trigram model over token ids.

p(w | u v) = (c(u v w) + T(u v) p(w | v)) / (c(u v) + T(u v)), with T the number of distinct tokens seen after a
context; the same for p(w | v), and p(w) is interpolated with the uniform distribution. A context that was never seen
leaves the decision to the shorter one. Source: Witten and Bell, "The zero-frequency problem", IEEE Transactions on
Information Theory 37(4), 1991.

Counts are integers and sums run in a fixed order, so that equal text gives equal figures on every machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from corpusmill.errors import ConfigError, ModelError

MAX_VOCABULARY = 2_000_000
"""Three ids of such a vocabulary fit in 63 bits."""


@dataclass(frozen=True)
class _Counts:
    """Counts of one order: sorted n-gram keys with counts, and sorted context keys with totals and distinct tokens."""

    grams: np.ndarray
    n: np.ndarray
    contexts: np.ndarray
    total: np.ndarray
    distinct: np.ndarray


class TrigramModel:
    """Counts of a corpus, ready to give probabilities.

    Args:
        sequences: Token ids of each document, without end token; at least one.
        n_vocab: V, number of ids.
        eod: Id that stands before and after each document.

    Raises:
        ModelError: There is no document.
        ConfigError: The vocabulary is too large for 63-bit keys.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], n_vocab: int, eod: int) -> None:
        if n_vocab > MAX_VOCABULARY:
            raise ConfigError(f"n_vocab={n_vocab} is above {MAX_VOCABULARY}; use a smaller tokenizer")
        parts = [np.array([eod, eod, *ids, eod], dtype=np.int64) for ids in sequences]
        if not parts:
            raise ModelError("there is no document to count; the arm keeps nothing")
        self.n_vocab, self.eod = n_vocab, eod
        grams = np.concatenate([np.stack([p[:-2], p[1:-1], p[2:]], axis=1) for p in parts])
        self.n_tokens = len(grams)
        u, v, w = grams.T
        self._orders = [_count(w, np.zeros_like(w)), _count(v * n_vocab + w, v), self._trigrams(u, v, w)]

    def _trigrams(self, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> _Counts:
        return _count((u * self.n_vocab + v) * self.n_vocab + w, u * self.n_vocab + v)

    def nll(self, ids: Sequence[int]) -> float:
        """Returns the negative log-likelihood of a document in nats, its end token not included.

        Args:
            ids: Token ids; () has 0.
        """
        if not len(ids):
            return 0.0
        padded = np.array([self.eod, self.eod, *ids], dtype=np.int64)
        return float(-np.log(self._probabilities(padded[:-2], padded[1:-1], padded[2:])).sum())

    def _probabilities(self, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        size = self.n_vocab
        keys = (w, v * size + w, (u * size + v) * size + w)
        contexts = (np.zeros_like(w), v, u * size + v)
        p = np.full(len(w), 1.0 / size)
        for counts, gram, context in zip(self._orders, keys, contexts, strict=True):
            n = _look_up(counts.grams, counts.n, gram)
            total = _look_up(counts.contexts, counts.total, context)
            distinct = _look_up(counts.contexts, counts.distinct, context)
            seen = total > 0
            p[seen] = (n[seen] + distinct[seen] * p[seen]) / (total[seen] + distinct[seen])
        return p


def _count(grams: np.ndarray, contexts: np.ndarray) -> _Counts:
    keys, first, n = np.unique(grams, return_index=True, return_counts=True)
    of_gram = contexts[first]
    names, of_name = np.unique(of_gram, return_inverse=True)
    total = np.bincount(of_name, weights=n).astype(np.int64)
    return _Counts(keys, n, names, total, np.bincount(of_name))


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the values of the wanted keys, 0 where a key is not among the sorted ones."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
