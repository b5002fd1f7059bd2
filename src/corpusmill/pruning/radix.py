"""Exact order statistics from mergeable counts: a radix descent over (64-bit key, 64-bit tie-break).

The first pass counts rows by the top 16 bits of the key. Each further pass looks only inside the bins that hold a
wanted place: it counts the next 16 bits there or, once few enough rows are left, collects them. Counts of shards add up
in any order, so the answer does not depend on sharding or retries. Memory is bounded by the number of distinct bins.

A place is given by its position: how much weight lies below it. Rows weigh 1, or an integer such as their tokens.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from corpusmill.errors import PermanentDataError
from corpusmill.pruning.order import Cut, Ids, Strata, codes_of, keys_of, rows_by_code, tiebreaks

DIGIT = 16
KEY_DIGITS = 4
COLLECT_ROWS = 1 << 18
"""Rows in all open bins up to which they are collected instead of counted once more."""
DENSE_ROWS = 1 << 12
"""Rows from which all 65,536 digits are counted at once instead of sorted."""
EXACT_IN_FLOAT = 1 << 53


class Bin(NamedTuple):
    """What a wanted position fell into at one level.

    Attributes:
        digit: The bin's digit.
        inside: The position, counted from the bin's start.
        n_rows: Rows in the bin.
        weight: Their weight.
        rows_before: Rows in the bins below it.
        weight_before: Their weight.
    """

    digit: int
    inside: int
    n_rows: int
    weight: int
    rows_before: int
    weight_before: int


@dataclass(frozen=True)
class Tally:
    """Sparse counts: sorted distinct digits, how many rows have each, and what those weigh together."""

    digits: np.ndarray
    counts: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, digits: np.ndarray, weights: np.ndarray | None = None) -> Self:
        """Returns the rows and the weight (int64; None: 1 a row) of each distinct digit below 65,536."""
        if len(digits) >= DENSE_ROWS:
            index = digits.astype(np.int64)
            counts = np.bincount(index)
            values = np.flatnonzero(counts)
            sums = counts if weights is None else _sums_at(index, weights)
            return cls(values.astype(np.uint64), counts[values], sums[values])
        values, index, counts = np.unique(digits, return_inverse=True, return_counts=True)
        sums = counts if weights is None else _sums_at(index, weights)
        return cls(values.astype(np.uint64), counts.astype(np.int64), sums.astype(np.int64))

    def merge(self, other: "Tally") -> "Tally":
        """Returns the sum of both."""
        digits, inverse = np.unique(np.concatenate([self.digits, other.digits]), return_inverse=True)
        counts, weights = np.zeros(len(digits), dtype=np.int64), np.zeros(len(digits), dtype=np.int64)
        np.add.at(counts, inverse, np.concatenate([self.counts, other.counts]))
        np.add.at(weights, inverse, np.concatenate([self.weights, other.weights]))
        return Tally(digits, counts, weights)

    def find(self, position: int) -> Bin:
        """Returns the bin that holds a position.

        Raises:
            PermanentDataError: The rows weigh less: they are not those that an earlier pass saw.
        """
        ends = np.cumsum(self.weights)
        at = int(np.searchsorted(ends, position, side="right"))
        if at >= len(ends):
            raise PermanentDataError(
                f"place {position} lies beyond the {int(ends[-1]) if len(ends) else 0} that were counted; the passes "
                "of a selection must see the same rows"
            )
        before = int(ends[at] - self.weights[at])
        rows_before = int(self.counts[:at].sum())
        return Bin(
            int(self.digits[at]), position - before, int(self.counts[at]), int(self.weights[at]), rows_before, before
        )


def _sums_at(index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the exact integer sum of the weights at each index."""
    if int(weights.sum()) < EXACT_IN_FLOAT:  # then every partial sum is a whole number that float64 holds
        return np.bincount(index, weights=weights).astype(np.int64)
    sums = np.zeros(int(index.max()) + 1, dtype=np.int64)
    np.add.at(sums, index, weights)
    return sums


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
    def of(cls, values: Any, strata: Strata = None, weights: Any = None) -> Self:
        """Returns the histogram of one shard.

        Args:
            values: float64 scores; NaN stands for "no score" and is only counted.
            strata: One label per row, or None.
            weights: int64 weight of each row, at least 0; None: 1.
        """
        scores = np.asarray(values, dtype=np.float64)
        names, codes = codes_of(strata, len(scores))
        missing = np.isnan(scores)
        digits = keys_of(np.where(missing, 0.0, scores)) >> np.uint64(64 - DIGIT)
        histogram = cls()
        for name, rows in zip(names, rows_by_code(codes, len(names)), strict=True):
            scored = ~missing[rows]
            weight = None if weights is None else np.asarray(weights, dtype=np.int64)[rows][scored]
            histogram.tallies[name] = Tally.of(digits[rows][scored], weight)
            histogram.n_unscored[name] = len(scored) - int(scored.sum())
        return histogram

    @property
    def n_scored(self) -> dict[str, int]:
        """Rows with a score by stratum."""
        return {name: int(tally.counts.sum()) for name, tally in sorted(self.tallies.items())}

    @property
    def weight(self) -> dict[str, int]:
        """Weight of the rows with a score by stratum."""
        return {name: int(tally.weights.sum()) for name, tally in sorted(self.tallies.items())}

    def pooled(self) -> Tally:
        """Returns the counts of all strata together."""
        pooled = Tally.of(np.empty(0, np.uint64))
        for tally in self.tallies.values():
            pooled = pooled.merge(tally)
        return pooled

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
            name: [tally.digits.tolist(), tally.counts.tolist(), tally.weights.tolist(), self.n_unscored[name]]
            for name, tally in sorted(self.tallies.items())
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Returns the histogram that `to_json` wrote."""
        tallies = {
            name: Tally(np.array(digits, np.uint64), np.array(counts, np.int64), np.array(weights, np.int64))
            for name, (digits, counts, weights, _) in values.items()
        }
        return cls(tallies, {name: int(item[3]) for name, item in values.items()})


Prefix = tuple[str, int]
"""Stratum and the bits of (key, tie-break) above the level."""


@dataclass
class BinCounts:
    """What one pass found in the open bins: digits counted, or rows collected as (key, tie-break, weight)."""

    tallies: dict[Prefix, Tally] = field(default_factory=dict)
    rows: dict[Prefix, list[np.ndarray]] = field(default_factory=dict)

    def merge(self, other: "BinCounts") -> "BinCounts":
        """Returns the sum of two shards' counts."""
        tallies = dict(self.tallies)
        for at, tally in other.tallies.items():
            tallies[at] = tallies[at].merge(tally) if at in tallies else tally
        rows = {at: self.rows.get(at, []) + other.rows.get(at, []) for at in {**self.rows, **other.rows}}
        return BinCounts(tallies, rows)


class Edge(NamedTuple):
    """A cut between two rows, and what lies below it.

    Attributes:
        cut: The cut.
        n_rows: Rows below it.
        weight: Their weight.
    """

    cut: Cut
    n_rows: int
    weight: int


class Place(NamedTuple):
    """The row at a wanted position (rows with one score and one tie-break count as one).

    Attributes:
        key: Its key.
        tie: Its tie-break.
        inside: The position, counted from the row's own start.
        n_rows: Rows with this key and tie-break.
        weight: Their weight.
        rows_before: Rows below it.
        weight_before: Their weight.
    """

    key: int
    tie: int
    inside: int
    n_rows: int
    weight: int
    rows_before: int
    weight_before: int

    def nearest_edge(self) -> Edge:
        """Returns the edge of the row that is nearest to the position; half way the row lies below it."""
        if self.weight > 2 * self.inside:
            return Edge(Cut(self.key, self.tie), self.rows_before, self.weight_before)
        after = (self.key << 64 | self.tie) + 1
        cut = Cut(after >> 64, after & ((1 << 64) - 1))
        return Edge(cut, self.rows_before + self.n_rows, self.weight_before + self.weight)


@dataclass
class _Target:
    """A wanted position on its way down: the bits found so far, and what lies below them."""

    prefix: int
    bin: Bin
    rows_before: int
    weight_before: int

    def down(self, found: Bin) -> "_Target":
        """Returns the target one digit further down."""
        rows, weight = self.rows_before + found.rows_before, self.weight_before + found.weight_before
        return _Target(self.prefix << DIGIT | found.digit, found, rows, weight)

    def place(self, key: int, tie: int) -> Place:
        """Returns what was found, where the bin is a single (key, tie-break)."""
        found = self.bin
        return Place(key, tie, found.inside, found.n_rows, found.weight, self.rows_before, self.weight_before)


class Descent:
    """Finds the rows at wanted positions, one 16-bit digit a pass.

    Attributes:
        found: What was found so far, by (stratum, position).
        open: Whether another pass is needed: `count` every shard, `merge` the counts, `advance`.
        collecting: Whether the next pass collects rows, and so is the last.
    """

    def __init__(
        self, histogram: Histogram, seed: int, positions: dict[str, list[int]], collect: int = COLLECT_ROWS
    ) -> None:
        self.found: dict[tuple[str, int], Place] = {}
        self._seed = seed
        self._collect_up_to = collect
        self._level = 1
        start = _Target(0, Bin(0, 0, 0, 0, 0, 0), 0, 0)
        self._targets = {
            (name, position): start.down(histogram.tallies[name].find(position))
            for name, wanted in positions.items()
            for position in wanted
        }
        self._look_at_bins()

    @property
    def open(self) -> bool:
        """Whether positions are still to be found."""
        return bool(self._targets)

    def _look_at_bins(self) -> None:
        self._sizes = {(name, target.prefix): target.bin.n_rows for (name, _), target in self._targets.items()}
        self.collecting = sum(self._sizes.values()) <= self._collect_up_to

    def count(self, values: Any, doc_ids: Ids, strata: Strata = None, weights: Any = None) -> BinCounts:
        """Returns what one shard holds in the open bins."""
        scores = np.asarray(values, dtype=np.float64)
        names, codes = codes_of(strata, len(scores))
        found = BinCounts()
        missing = np.isnan(scores)
        keys = keys_of(np.where(missing, 0.0, scores))
        index = dict(zip(names, rows_by_code(codes, len(names)), strict=True))
        weight = np.ones(len(scores), np.int64) if weights is None else np.asarray(weights, np.int64)
        for name, prefix in self._sizes:
            if name not in index:
                continue
            inside = np.flatnonzero(self._matches(keys[index[name]], prefix) & ~missing[index[name]])
            rows = inside if isinstance(index[name], slice) else index[name][inside]
            self._count_bin(found, (name, prefix), keys, doc_ids, rows, weight)
        return found

    def _matches(self, keys: np.ndarray, prefix: int) -> np.ndarray:
        if self._level >= KEY_DIGITS:
            return keys == np.uint64(prefix >> DIGIT * (self._level - KEY_DIGITS))
        return (keys >> np.uint64(64 - DIGIT * self._level)) == np.uint64(prefix)

    def _count_bin(
        self, found: BinCounts, at: Prefix, keys: np.ndarray, doc_ids: Ids, rows: np.ndarray, weights: np.ndarray
    ) -> None:
        if self._level < KEY_DIGITS and not self.collecting:
            digits = (keys[rows] >> np.uint64(64 - DIGIT * (self._level + 1))) & np.uint64(0xFFFF)
            found.tallies[at] = Tally.of(digits, weights[rows])
            return
        ties = tiebreaks(doc_ids, self._seed, rows)
        if self._level > KEY_DIGITS:
            bits = DIGIT * (self._level - KEY_DIGITS)
            inside = (ties >> np.uint64(64 - bits)) == np.uint64(at[1] & ((1 << bits) - 1))
            rows, ties = rows[inside], ties[inside]
        if self.collecting:
            found.rows[at] = [np.stack([keys[rows], ties, weights[rows].astype(np.uint64)], axis=1)]
            return
        shift = np.uint64(64 - DIGIT * (self._level - KEY_DIGITS + 1))
        found.tallies[at] = Tally.of((ties >> shift) & np.uint64(0xFFFF), weights[rows])

    def advance(self, counts: BinCounts) -> None:
        """Takes the merged counts of all shards and goes one digit down, or ends.

        Raises:
            PermanentDataError: The counts do not hold the rows that the histogram promised.
        """
        if self.collecting:
            self._finish(counts)
            return
        empty = Tally.of(np.empty(0, np.uint64))
        for (name, position), target in self._targets.items():
            tally = counts.tallies.get((name, target.prefix), empty)
            self._targets[name, position] = target.down(tally.find(target.bin.inside))
        self._level += 1
        self._look_at_bins()
        if self._level == 2 * KEY_DIGITS:  # equal to the last bit of the hash: the rows cannot be told apart
            for wanted, target in self._targets.items():
                self.found[wanted] = target.place(target.prefix >> 64, target.prefix & ((1 << 64) - 1))
            self._targets = {}

    def _finish(self, counts: BinCounts) -> None:
        ordered: dict[Prefix, tuple[np.ndarray, Tally]] = {}
        for at, size in self._sizes.items():
            rows = np.concatenate(counts.rows.get(at) or [np.empty((0, 3), np.uint64)])
            if len(rows) != size:
                raise PermanentDataError(
                    f"stratum {at[0]!r} had {size} rows in a boundary bin in one pass and {len(rows)} in the next; "
                    "the passes of a selection must see the same rows"
                )
            ordered[at] = _distinct(rows[np.lexsort((rows[:, 1], rows[:, 0]))])
        for (name, position), target in self._targets.items():
            places, tally = ordered[name, target.prefix]
            found = target.down(tally.find(target.bin.inside))
            key, tie = places[found.bin.digit]
            self.found[name, position] = found.place(int(key), int(tie))
        self._targets = {}


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, Tally]:
    """Returns the distinct (key, tie-break) of sorted rows, and rows and weight of each by its number."""
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(rows)))
    weights = np.add.reduceat(rows[:, 2].astype(np.int64), starts) if len(starts) else np.empty(0, np.int64)
    return rows[starts, :2], Tally(np.arange(len(starts), dtype=np.uint64), counts, weights)
