"""How far the scores of a new crawl have moved from those that cut-offs were frozen on.

A manifest keeps a profile of the scores it was resolved on: counts of rows between at most 15 edges. The edges are bin
edges of the first pass's histogram (16 bins for each doubling of the score), so the same counts of a new crawl are
exact, and neither sharding nor a retry changes the distances.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from corpusmill.pruning.order import float_of_key
from corpusmill.pruning.radix import DIGIT, Tally

GROUPS = 16
"""Groups of nearly equal size that a profile aims at."""
MAJOR_PSI = 0.25
"""Population stability index from which scores count as another distribution; 0.1 is the usual first look."""


class Drift(NamedTuple):
    """Distances between a new crawl's scores and the profile of the frozen cut-offs.

    Attributes:
        ks: Largest difference of the two cumulative shares over the profile's edges, in [0, 1]: a lower bound of the
            Kolmogorov-Smirnov distance.
        psi: Population stability index over the profile's groups, sum of (a - b) ln(a / b) over the shares, at least
            0; half a row is added to every group, so that an empty one does not make it infinite.
        kept_share: Weight that the frozen cut-offs keep of the new crawl's, 0 where it has none.
        frozen_share: Share that was asked for when they were frozen.
    """

    ks: float
    psi: float
    kept_share: float
    frozen_share: float

    @property
    def major(self) -> bool:
        """Whether the cut-offs should be resolved again."""
        return self.psi > MAJOR_PSI


@dataclass(frozen=True)
class Profile:
    """Rows of one crawl between edges of the score.

    Attributes:
        edges: Ascending; each the first 16-bit digit of the key that belongs above it.
        counts: Rows in each of the ``len(edges) + 1`` groups.
    """

    edges: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, tally: Tally) -> Self:
        """Returns the profile of a histogram's pooled counts: groups as equal as its bins allow."""
        ends = np.cumsum(tally.counts)
        n = int(ends[-1]) if len(ends) else 0
        # an edge after the first bin that reaches each share; a bin that spans several of them makes one
        wanted = [-(-n * i // GROUPS) for i in range(1, GROUPS)] if n else []
        after = sorted({int(np.searchsorted(ends, w, side="left")) + 1 for w in wanted})
        edges = tuple(int(tally.digits[i]) for i in after if i < len(ends))
        return cls(edges, _counts(tally, edges))

    @property
    def scores(self) -> list[float]:
        """The edges as scores."""
        return [float_of_key(edge << (64 - DIGIT)) for edge in self.edges]

    def distances(self, tally: Tally) -> tuple[float, float]:
        """Returns (ks, psi) between this profile and another crawl's pooled counts; (0, 0) where one has no rows."""
        ours, theirs = np.array(self.counts, dtype=np.float64), np.array(_counts(tally, self.edges), dtype=np.float64)
        if not ours.sum() or not theirs.sum():
            return 0.0, 0.0
        ks = np.abs(np.cumsum(ours) / ours.sum() - np.cumsum(theirs) / theirs.sum()).max()
        a, b = ((group + 0.5) / (group + 0.5).sum() for group in (ours, theirs))
        psi = math.fsum(((a - b) * np.log(a / b)).tolist())
        return round(float(ks), 6), round(max(psi, 0.0), 6)

    def to_json(self) -> dict[str, Any]:
        """Returns a plain mapping; edges as the four hex digits that begin a key."""
        return {"edges": [f"{edge:04x}" for edge in self.edges], "counts": list(self.counts)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Returns the profile that `to_json` wrote."""
        return cls(tuple(int(edge, 16) for edge in values["edges"]), tuple(int(n) for n in values["counts"]))


def _counts(tally: Tally, edges: tuple[int, ...]) -> tuple[int, ...]:
    below = np.append(0, np.cumsum(tally.counts))
    at = below[np.searchsorted(tally.digits, np.array(edges, dtype=np.uint64), side="left")]
    return tuple(np.diff([0, *at.tolist(), int(below[-1])]).tolist())
