"""Which examples a training step sees: the share that keeps is held within bounds, and each epoch is shuffled anew.

The order follows from seed and step alone, so that a resumed run goes on with the data it would have had.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

ROUNDING = 1e-9
"""What a product of shares may miss a whole number by."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MixPlan:
    """How many examples of each kind an epoch has; a kind can have more or fewer than there are."""

    n_keep: int
    n_edit: int

    @property
    def keep_share(self) -> float:
        """Share of examples that keep."""
        return self.n_keep / max(1, self.n_keep + self.n_edit)


def plan_mix(n_keep: int, n_edit: int, bounds: tuple[float, float] | None, max_repeats: int) -> MixPlan:
    """Returns an epoch whose share of keeping examples is within the bounds, as near as whole numbers allow.

    The rarer kind is repeated, at most ``max_repeats`` times; where that does not suffice, the other kind is thinned
    out (other ones each epoch). Examples of one kind alone are left as they are.

    Args:
        n_keep: Examples that keep.
        n_edit: Examples that edit or drop.
        bounds: Least and greatest share of keeping examples; None: no bounds.
        max_repeats: Limit of repetition.
    """
    if bounds is None or not n_keep or not n_edit:
        return MixPlan(n_keep, n_edit)
    share, (low, high) = n_keep / (n_keep + n_edit), bounds
    if share < low:
        keep, edit = _balanced(n_keep, n_edit, low, max_repeats)
        return MixPlan(keep, edit)
    if share > high:
        edit, keep = _balanced(n_edit, n_keep, 1 - high, max_repeats)
        return MixPlan(keep, edit)
    return MixPlan(n_keep, n_edit)


def _balanced(n_rare: int, n_common: int, share: float, max_repeats: int) -> tuple[int, int]:
    """Returns numbers of which the rarer kind makes up at least ``share``."""
    wanted = math.ceil(n_common * share / (1 - share) - ROUNDING)
    if wanted <= n_rare * max_repeats:
        return wanted, n_common
    repeated = n_rare * max_repeats
    return repeated, max(1, math.floor(repeated * (1 - share) / share + ROUNDING))


class Mix:
    """The order of training examples.

    Args:
        keeps: For each example whether it keeps.
        plan: Numbers of an epoch.
        seed: Of the order.
    """

    def __init__(self, keeps: Sequence[bool], plan: MixPlan, seed: int) -> None:
        marks = np.asarray(keeps, dtype=np.bool_)
        self.kinds = (np.flatnonzero(marks), np.flatnonzero(~marks))
        self.plan, self.seed = plan, seed
        self.size = plan.n_keep + plan.n_edit
        self._order = lru_cache(maxsize=2)(self._shuffled_epoch)

    def rows(self, step: int, n: int) -> list[int]:
        """Returns the example numbers of one step of ``n`` examples; steps follow each other across epochs."""
        places = range(step * n, (step + 1) * n)
        return [int(self.epoch(place // self.size)[place % self.size]) for place in places]

    def epoch(self, number: int) -> Indices:
        """Returns the example numbers of an epoch, in order."""
        return self._order(number)

    def _shuffled_epoch(self, number: int) -> Indices:
        counts = (self.plan.n_keep, self.plan.n_edit)
        dealt = [
            members[_deal(number * count, count, len(members), [self.seed, kind])]
            for kind, (members, count) in enumerate(zip(self.kinds, counts, strict=True))
            if count
        ]
        order = np.concatenate(dealt)
        return np.random.default_rng([self.seed, 2, number]).permutation(order)


def _deal(start: int, count: int, n: int, seed: Sequence[int]) -> Indices:
    """Returns ``count`` of ``n`` cards from place ``start`` on, of one shuffled deck after the other."""
    places = np.arange(start, start + count, dtype=np.int64)
    cards = np.empty(count, dtype=np.int64)
    for deck in np.unique(places // n).tolist():
        here = places // n == deck
        order = np.random.default_rng([*seed, deck]).permutation(n)
        cards[here] = order[places[here] % n]
    return cards
