"""Exact order statistics from mergeable counts: a radix descent over (64-bit key, 64-bit tie-break).

The first pass counts rows by the top 16 bits of the key. Each further pass looks only inside the bins that hold a
wanted rank: it counts the next 16 bits there or, once few enough rows are left, collects them. Counts of shards add up
in any order, so the answer does not depend on sharding or retries. Memory is bounded by the number of distinct bins.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from corpusmill.errors import PermanentDataError
from corpusmill.pruning.cuts import Cut
from corpusmill.pruning.order import Ids, Strata, codes_of, keys_of, tiebreaks

DIGIT = 16
KEY_DIGITS = 4
COLLECT_ROWS = 1 << 18
"""Rows in all open bins up to which they are collected instead of counted once more."""


@dataclass(frozen=True)
class Tally:
    """Sparse counts: sorted distinct digits and how often each occurs."""

    digits: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, digits: np.ndarray) -> Self:
        """Returns the counts of each distinct digit."""
        values, counts = np.unique(digits, return_counts=True)
        return cls(values, counts.astype(np.int64))

    def merge(self, other: "Tally") -> "Tally":
        """Returns the sum of both."""
        digits, inverse = np.unique(np.concatenate([self.digits, other.digits]), return_inverse=True)
        counts = np.zeros(len(digits), dtype=np.int64)
        np.add.at(counts, inverse, np.concatenate([self.counts, other.counts]))
        return Tally(digits, counts)

    def find(self, rank: int) -> tuple[int, int, int]:
        """Returns the digit that holds the rank, the rank inside that digit's bin, and the bin's rows."""
        ends = np.cumsum(self.counts)
        at = int(np.searchsorted(ends, rank, side="right"))
        if at >= len(ends):
            raise PermanentDataError(
                f"rank {rank} lies beyond the {int(ends[-1]) if len(ends) else 0} rows that were counted; the passes "
                "of a selection must see the same rows"
            )
        return int(self.digits[at]), rank - int(ends[at] - self.counts[at]), int(self.counts[at])


@dataclass
class Histogram:
    """Scores of one or more shards by stratum and top 16 key bits; the first pass of a selection.

    Attributes:
        tallies: Counts by stratum.
        n_unscored: Rows without a score by stratum (every stratum seen has an entry).
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    n_unscored: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Any, strata: Strata = None) -> Self:
        """Returns the histogram of one shard.

        Args:
            values: float64 scores; NaN stands for "no score" and is only counted.
            strata: One label per row, or None.
        """
        scores = np.asarray(values, dtype=np.float64)
        names, codes = codes_of(strata, len(scores))
        missing = np.isnan(scores)
        keys = keys_of(np.where(missing, 0.0, scores)) >> np.uint64(64 - DIGIT)
        histogram = cls()
        for code, name in enumerate(names):
            here = codes == code
            histogram.tallies[name] = Tally.of(keys[here & ~missing])
            histogram.n_unscored[name] = int((here & missing).sum())
        return histogram

    @property
    def n_scored(self) -> dict[str, int]:
        """Rows with a score by stratum."""
        return {name: int(tally.counts.sum()) for name, tally in sorted(self.tallies.items())}

    def merge(self, other: "Histogram") -> "Histogram":
        """Returns the sum of two shards' histograms."""
        tallies = dict(self.tallies)
        unscored = dict(self.n_unscored)
        for name, tally in other.tallies.items():
            tallies[name] = tallies[name].merge(tally) if name in tallies else tally
            unscored[name] = unscored.get(name, 0) + other.n_unscored[name]
        return Histogram(tallies, unscored)

    def to_json(self) -> dict[str, Any]:
        """Returns a plain mapping, a few kilobytes for real scores."""
        return {
            name: [tally.digits.tolist(), tally.counts.tolist(), self.n_unscored[name]]
            for name, tally in sorted(self.tallies.items())
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Returns the histogram that `to_json` wrote."""
        tallies = {k: Tally(np.array(v[0], np.uint64), np.array(v[1], np.int64)) for k, v in values.items()}
        return cls(tallies, {k: int(v[2]) for k, v in values.items()})


Bin = tuple[str, int]
"""Stratum and the bits of (key, tie-break) above the level."""


@dataclass
class BinCounts:
    """What one pass found in the open bins: digits counted, or rows collected as (key, tie-break)."""

    tallies: dict[Bin, Tally] = field(default_factory=dict)
    rows: dict[Bin, list[np.ndarray]] = field(default_factory=dict)

    def merge(self, other: "BinCounts") -> "BinCounts":
        """Returns the sum of two shards' counts."""
        tallies = dict(self.tallies)
        for at, tally in other.tallies.items():
            tallies[at] = tallies[at].merge(tally) if at in tallies else tally
        rows = {at: self.rows.get(at, []) + other.rows.get(at, []) for at in {**self.rows, **other.rows}}
        return BinCounts(tallies, rows)


class Descent:
    """Finds the (key, tie-break) of wanted ranks, one 16-bit digit a pass.

    Attributes:
        cuts: What was found so far, by (stratum, rank).
        open: Whether another pass is needed: `count` every shard, `merge` the counts, `advance`.
    """

    def __init__(
        self, histogram: Histogram, seed: int, ranks: dict[str, list[int]], collect: int = COLLECT_ROWS
    ) -> None:
        self.cuts: dict[tuple[str, int], Cut] = {}
        self._seed = seed
        self._collect_up_to = collect
        self._level = 1
        self._targets: dict[tuple[str, int], tuple[int, int]] = {}
        self._sizes: dict[Bin, int] = {}
        for name, wanted in ranks.items():
            for rank in wanted:
                digit, inside, size = histogram.tallies[name].find(rank)
                self._targets[name, rank] = (digit, inside)
                self._sizes[name, digit] = size

    @property
    def open(self) -> bool:
        """Whether ranks are still to be found."""
        return bool(self._targets)

    @property
    def collecting(self) -> bool:
        """Whether the next pass collects rows, and so is the last."""
        return sum(self._sizes.values()) <= self._collect_up_to

    def count(self, values: Any, doc_ids: Ids, strata: Strata = None) -> BinCounts:
        """Returns what one shard holds in the open bins."""
        scores = np.asarray(values, dtype=np.float64)
        names, codes = codes_of(strata, len(scores))
        found = BinCounts()
        if not len(scores):
            return found
        missing = np.isnan(scores)
        keys = keys_of(np.where(missing, 0.0, scores))
        index = {name: code for code, name in enumerate(names)}
        for name, prefix in self._sizes:
            if name not in index:
                continue
            rows = np.flatnonzero((codes == index[name]) & ~missing & self._matches(keys, prefix))
            self._count_bin(found, (name, prefix), keys, doc_ids, rows)
        return found

    def _matches(self, keys: np.ndarray, prefix: int) -> np.ndarray:
        if self._level >= KEY_DIGITS:
            return keys == np.uint64(prefix >> DIGIT * (self._level - KEY_DIGITS))
        return (keys >> np.uint64(64 - DIGIT * self._level)) == np.uint64(prefix)

    def _count_bin(self, found: BinCounts, at: Bin, keys: np.ndarray, doc_ids: Ids, rows: np.ndarray) -> None:
        if self._level < KEY_DIGITS and not self.collecting:
            digits = (keys[rows] >> np.uint64(64 - DIGIT * (self._level + 1))) & np.uint64(0xFFFF)
            found.tallies[at] = Tally.of(digits)
            return
        ties = tiebreaks(doc_ids, self._seed, rows)
        if self._level > KEY_DIGITS:
            bits = DIGIT * (self._level - KEY_DIGITS)
            inside = (ties >> np.uint64(64 - bits)) == np.uint64(at[1] & ((1 << bits) - 1))
            rows, ties = rows[inside], ties[inside]
        if self.collecting:
            found.rows[at] = [np.stack([keys[rows], ties], axis=1)]
            return
        shift = np.uint64(64 - DIGIT * (self._level - KEY_DIGITS + 1))
        found.tallies[at] = Tally.of((ties >> shift) & np.uint64(0xFFFF))

    def advance(self, counts: BinCounts) -> None:
        """Takes the merged counts of all shards and goes one digit down, or ends.

        Raises:
            PermanentDataError: The counts do not hold the rows that the histogram promised.
        """
        if self.collecting:
            self._finish(counts)
            return
        targets, sizes = {}, {}
        for (name, rank), (prefix, inside) in self._targets.items():
            digit, deeper, size = counts.tallies.get((name, prefix), Tally.of(np.empty(0, np.uint64))).find(inside)
            longer = prefix << DIGIT | digit
            targets[name, rank] = (longer, deeper)
            sizes[name, longer] = size
        self._targets, self._sizes = targets, sizes
        self._level += 1
        if self._level == 2 * KEY_DIGITS:  # equal to the last bit of the hash: the rows cannot be told apart
            for (name, rank), (prefix, _) in targets.items():
                self.cuts[name, rank] = Cut(prefix >> 64, prefix & ((1 << 64) - 1))
            self._targets, self._sizes = {}, {}

    def _finish(self, counts: BinCounts) -> None:
        ordered: dict[Bin, np.ndarray] = {}
        for at, size in self._sizes.items():
            rows = np.concatenate(counts.rows.get(at) or [np.empty((0, 2), np.uint64)])
            if len(rows) != size:
                raise PermanentDataError(
                    f"stratum {at[0]!r} had {size} rows in a boundary bin in one pass and {len(rows)} in the next; "
                    "the passes of a selection must see the same rows"
                )
            ordered[at] = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        for (name, rank), (prefix, inside) in self._targets.items():
            key, tie = ordered[name, prefix][inside]
            self.cuts[name, rank] = Cut(int(key), int(tie))
        self._targets, self._sizes = {}, {}
