"""Sampling without replacement by score and temperature: rank selection of scores with noise that hangs on the row.

The k rows with the largest ``score + temperature * sigma * gumbel`` are k draws without replacement with probabilities
in proportion to exp(z / temperature), z the score in standard deviations. The Gumbel noise is a hash of seed and
document id, so whether a row is kept depends neither on sharding nor on a retry.

Source: QuRating (arXiv 2402.09739), "Data selection": ratings as logits over documents, by the Gumbel top-k trick; its
released selection divides by the standard deviation of the whole corpus (``--normalize``), which is done here always,
so that a temperature means the same for every score. Only differences of scores matter, so the mean is not subtracted.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np

from corpusmill.errors import PermanentDataError
from corpusmill.pruning.order import Ids, tiebreaks

GRID = 2.0**-20
"""Step to which noise is rounded: the last bits of a logarithm differ between processors."""
MANTISSA_BITS = 53
HALF_BITS = 27
LARGEST_SCORE = 1e150
"""Scores up to this magnitude have a square that float64 holds."""


def gumbel_noise(ids: Ids, seed: int) -> np.ndarray:
    """Returns standard Gumbel noise of each row as float64, a pure function of seed and document id."""
    # the chance above a row's place, not below it: small numbers near the large noise that decides are the exact ones
    above = ((~tiebreaks(ids, seed)).astype(np.float64) + 0.5) / 2.0**64
    return np.round(-np.log(-np.log1p(-np.minimum(above, 1 - 2.0**-53))) / GRID) * GRID


def with_noise(values: np.ndarray, ids: Ids, seed: int, noise: float) -> np.ndarray:
    """Returns scores plus Gumbel noise of the given width: negative where low scores are preferred, 0 adds none."""
    return values + noise * gumbel_noise(ids, seed) if noise else values


@dataclass
class Moments:
    """Exact sums of scores and of their squares, which add up to the same numbers in any order.

    Attributes:
        n: Rows with a score.
        total: Sum of the scores, by power of two.
        squares: Sum of their squares (each rounded to float64), by power of two.
        n_unbounded: Rows whose score is infinite or too large to be squared.
    """

    n: int = 0
    total: dict[int, int] = field(default_factory=dict)
    squares: dict[int, int] = field(default_factory=dict)
    n_unbounded: int = 0

    @classmethod
    def of(cls, values: Any) -> Self:
        """Returns the sums of one shard; NaN is "no score"."""
        scores = np.asarray(values, dtype=np.float64)
        scores = scores[~np.isnan(scores)]
        bounded = scores[np.abs(scores) <= LARGEST_SCORE]
        return cls(len(scores), _exact_sum(bounded), _exact_sum(bounded * bounded), len(scores) - len(bounded))

    def merge(self, other: "Moments") -> "Moments":
        """Returns the sums of both shards."""
        return Moments(
            self.n + other.n,
            _added(self.total, other.total),
            _added(self.squares, other.squares),
            self.n_unbounded + other.n_unbounded,
        )

    def sigma(self) -> float:
        """Returns the standard deviation over all rows, 0 for none.

        Raises:
            PermanentDataError: A score is infinite or so large that there is none.
        """
        if self.n_unbounded:
            raise PermanentDataError(
                f"{self.n_unbounded} of {self.n} scores are infinite or above {LARGEST_SCORE:g}: they have no standard "
                "deviation to sample by; look at those rows, or select with mode 'rank'"
            )
        if not self.n:
            return 0.0
        mean = _exact(self.total) / self.n
        return math.sqrt(max(Fraction(0), _exact(self.squares) / self.n - mean * mean))

    def to_json(self) -> dict[str, Any]:
        """Returns a plain mapping of at most a few kilobytes."""
        return {"n": self.n, "total": self.total, "squares": self.squares, "n_unbounded": self.n_unbounded}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Returns the sums that `to_json` wrote, also where JSON made the exponents text."""
        total, squares = ({int(e): int(v) for e, v in values[name].items()} for name in ("total", "squares"))
        return cls(int(values["n"]), total, squares, int(values["n_unbounded"]))


def _exact_sum(values: np.ndarray) -> dict[int, int]:
    """Returns the exact sum of finite float64 values as whole multiples of powers of two.

    Each value is split in an integer mantissa and an exponent; the two halves of the mantissas are summed by exponent
    in float64, which is exact below 2^26 rows.
    """
    if not len(values):
        return {}
    if len(values) >= 1 << 25:
        half = len(values) // 2
        return _added(_exact_sum(values[:half]), _exact_sum(values[half:]))
    fractions, exponents = np.frexp(values)
    mantissas = np.ldexp(fractions, MANTISSA_BITS).astype(np.int64)
    lowest = int(exponents.min())
    index = exponents - lowest
    high = np.bincount(index, weights=mantissas >> HALF_BITS)
    low = np.bincount(index, weights=mantissas & ((1 << HALF_BITS) - 1))
    sums = {
        lowest + i - MANTISSA_BITS: (int(h) << HALF_BITS) + int(part)
        for i, (h, part) in enumerate(zip(high, low, strict=True))
    }
    return {exponent: total for exponent, total in sums.items() if total}


def _added(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
    return {exponent: a.get(exponent, 0) + b.get(exponent, 0) for exponent in sorted({*a, *b})}


def _exact(sums: dict[int, int]) -> Fraction:
    return sum((Fraction(total) * Fraction(2) ** exponent for exponent, total in sums.items()), Fraction(0))
