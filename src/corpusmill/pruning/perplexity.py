"""Perplexity and its kin from stored sums: mean negative log-likelihood, perplexity, bits per byte.

The sums come from `corpusmill.pruning.one_pass`. Rank on `mean_nll`, never on `perplexity`: the order is the same and
perplexity overflows (mean NLL 2000 is an infinite perplexity).

Source: "When Less is More" (arXiv 2309.04564v1), equations 4 and 5. Natural logarithms.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def mean_nll(nll_sum: ArrayLike, n_scored: ArrayLike) -> Floats:
    """Returns nats per scored token, NaN where no token was scored."""
    return per_token(nll_sum, n_scored)


def perplexity(nll_sum: ArrayLike, n_scored: ArrayLike) -> Floats:
    """Returns exp of the mean NLL, at least 1; infinite beyond float64, NaN where no token was scored."""
    with np.errstate(over="ignore"):
        return np.exp(mean_nll(nll_sum, n_scored))


def bits_per_byte(nll_sum: ArrayLike, n_bytes: ArrayLike) -> Floats:
    """Returns bits per UTF-8 byte of the document, NaN for an empty document.

    It compares models with different tokenizers, and does not favour text of short tokens as NLL per token does. The
    unscored first token of a window counts in the bytes, so very short documents come out a little low.
    """
    return per_token(nll_sum, n_bytes) / np.log(2.0)


def per_token(total: ArrayLike, count: ArrayLike) -> Floats:
    """Returns ``total / count`` as float64, NaN where the total is NaN or the count is 0."""
    totals, counts = np.asarray(total, dtype=np.float64), np.asarray(count, dtype=np.float64)
    return np.divide(totals, counts, out=np.full(np.broadcast(totals, counts).shape, np.nan), where=counts > 0)
