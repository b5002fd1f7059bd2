"""Resolves a selection in passes of mergeable counts over the shards.

Each pass counts every shard (in any order, on any machine), merges the counts, and leads to the next pass or to the
manifest. A pass is a function of the settings and of the merged counts of the passes before it alone, so it can be
repeated, and shards may be counted by mapped tasks as well as one after the other.

    sample:    moments -> histogram -> places ... -> manifest
    rank:      histogram -> places ... -> manifest
    threshold: histogram -> places ... -> kept rows -> manifest
    cutoffs:   histogram -> kept rows -> manifest
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import ROWS, Manifest, StratumCuts
from corpusmill.pruning.drift import Drift, Profile
from corpusmill.pruning.order import END, EVERYTHING, START, codes_of, float_of_key, rows_by_code
from corpusmill.pruning.radix import BinCounts, Descent, Edge, Histogram, Place
from corpusmill.pruning.sampling import Moments, with_noise
from corpusmill.pruning.score_columns import Rows

log = logging.getLogger(__name__)

WARNINGS = 10
"""Strata that are warned of by name; the rest is counted."""
OFF = Fraction(1, 100)
"""Distance of the kept share from the fraction from which a selection warns (a point)."""


class Pass(Protocol):
    """One pass over the shards."""

    def empty(self) -> Any:
        """Returns the counts of no rows."""

    def count(self, rows: Rows) -> Any:
        """Returns the counts of one shard; they have ``merge``."""

    def then(self, counts: Any) -> "Pass | Manifest":
        """Returns what follows from the merged counts of all shards."""


def first_pass(config: SelectionConfig, frozen: Manifest | None = None, score_key: str = "") -> "Pass":
    """Returns the first pass of a selection.

    Args:
        config: What to keep.
        frozen: The manifest that ``mode: cutoffs`` applies, None for the other modes.
        score_key: Identity of the scores; stored in the manifest.
    """
    if config.mode == "sample" and config.temperature > 0:
        return MomentsPass(config, score_key)
    return HistogramPass(config, score_key, frozen=frozen, noise=frozen.noise if frozen else 0.0)


@dataclass(frozen=True)
class MomentsPass:
    """Finds the standard deviation of the scores, which sets the width of a sample's noise."""

    config: SelectionConfig
    score_key: str

    def empty(self) -> Moments:
        """Returns the sums of no rows."""
        return Moments()

    def count(self, rows: Rows) -> Moments:
        """Returns the sums of one shard."""
        return Moments.of(rows.values)

    def then(self, counts: Moments) -> "Pass":
        """Returns the histogram of the scores with noise."""
        width = self.config.temperature * counts.sigma()
        return HistogramPass(self.config, self.score_key, noise=-width if self.config.which == "bottom" else width)


@dataclass(frozen=True)
class HistogramPass:
    """Counts the scores by their first 16 bits."""

    config: SelectionConfig
    score_key: str
    frozen: Manifest | None = None
    noise: float = 0.0

    def empty(self) -> Histogram:
        """Returns the histogram of no rows."""
        return Histogram()

    def count(self, rows: Rows) -> Histogram:
        """Returns the histogram of one shard."""
        return Histogram.of(_ordered(rows, self.config.seed, self.noise), rows.strata, rows.weights)

    def then(self, counts: Histogram) -> "Pass | Manifest":
        """Returns the search for the rows at the ends of what is kept, or the count under frozen cut-offs."""
        if self.frozen is not None:
            return _FrozenPass(self.config, replace(self.frozen, score_key=self.score_key), counts)
        ends = (
            threshold_ends(counts, self.config) if self.config.mode == "threshold" else rank_ends(counts, self.config)
        )
        descent = Descent(counts, self.config.seed, ends)
        places = PlacesPass(self.config, self.score_key, counts, descent, self.noise)
        return places if descent.open else places.conclusion()


@dataclass(frozen=True)
class PlacesPass:
    """Finds the rows at wanted places, one digit further each time."""

    config: SelectionConfig
    score_key: str
    histogram: Histogram
    descent: Descent
    noise: float

    def empty(self) -> BinCounts:
        """Returns the counts of no rows."""
        return BinCounts()

    def count(self, rows: Rows) -> BinCounts:
        """Returns what one shard holds in the open bins."""
        values = _ordered(rows, self.config.seed, self.noise)
        return self.descent.count(values, rows.doc_ids, rows.strata, rows.weights)

    def then(self, counts: BinCounts) -> "Pass | Manifest":
        """Returns the next digit's pass, or what follows when all places are found."""
        self.descent.advance(counts)
        return self if self.descent.open else self.conclusion()

    def conclusion(self) -> "Pass | Manifest":
        """Returns the manifest of a rank selection, or the count of what thresholds keep."""
        build = thresholds if self.config.mode == "threshold" else rank_cuts
        manifest = Manifest(
            column=self.config.column,
            fraction=self.config.fraction,
            which=self.config.which,
            mode=self.config.mode,
            by=self.config.by,
            seed=self.config.seed,
            keep_unscored=self.config.keep_unscored,
            score_key=self.score_key,
            strata=build(self.histogram, self.descent.found, self.config),
            weight=self.config.weight,
            percentile=self.config.percentile if self.config.mode == "threshold" else None,
            temperature=self.config.temperature if self.config.mode == "sample" else None,
            noise=self.noise,
            profile=Profile.of(self.histogram.pooled()),
        )
        return KeptPass(self.config, manifest) if self.config.mode == "threshold" else manifest


def _ordered(rows: Rows, seed: int, noise: float) -> np.ndarray:
    return with_noise(np.asarray(rows.values, dtype=np.float64), rows.doc_ids, seed, noise)


def kept_ranks(n: int, fraction: Fraction, which: str) -> tuple[int, int]:
    """Returns the half-open range of kept ranks among n scored rows (or units of weight) in ascending order.

    k = round_half_up(n * fraction); bottom [0, k), middle [(n-k)//2, (n-k)//2 + k), top [n-k, n).
    """
    k = (2 * n * fraction.numerator + fraction.denominator) // (2 * fraction.denominator)
    lo = {"bottom": 0, "middle": (n - k) // 2, "top": n - k}[which]
    return lo, lo + k


def rank_ends(histogram: Histogram, config: SelectionConfig) -> dict[str, list[int]]:
    """Returns the places inside each stratum's order at which the kept range begins and ends."""
    return {
        name: sorted({place for place in kept_ranks(total, config.keep, config.which) if 0 < place < total})
        for name, total in histogram.weight.items()
    }


def rank_cuts(
    histogram: Histogram, found: Mapping[tuple[str, int], Place], config: SelectionConfig
) -> dict[str, StratumCuts]:
    """Returns the cuts of a rank selection from the rows that were found at its ends."""
    strata, n_scored = {}, histogram.n_scored
    for name, total in histogram.weight.items():
        n = n_scored[name]
        bottom, top = Edge(START, 0, 0), Edge(END, n, total)
        lo, hi = (
            found[name, place].nearest_edge() if 0 < place < total else top if place else bottom
            for place in kept_ranks(total, config.keep, config.which)
        )
        if config.keep == 1 and n:  # also where all rows weigh nothing
            lo, hi = bottom, top
        strata[name] = StratumCuts(
            lo=lo.cut,
            hi=hi.cut,
            n_scored=n,
            n_kept=hi.n_rows - lo.n_rows,
            n_unscored=histogram.n_unscored[name],
            weight_scored=total,
            weight_kept=hi.weight - lo.weight,
        )
    return strata


def threshold_quantiles(fraction: Fraction, which: str) -> tuple[Fraction | None, Fraction | None]:
    """Returns the lower and upper quantile between which scores are kept, both inclusive; None is an open end.

    Source: arXiv 2309.04564v1, section 3.3: the middle 30 % lies between the 35th and the 65th percentile.
    """
    if which == "bottom":
        return None, fraction
    if which == "top":
        return 1 - fraction, None
    return (1 - fraction) / 2, (1 + fraction) / 2


def threshold_ends(histogram: Histogram, config: SelectionConfig) -> dict[str, list[int]]:
    """Returns the places of the rows that percentiles are computed from."""
    quantiles = [q for q in threshold_quantiles(config.keep, config.which) if q is not None]
    return {
        name: sorted({place for q in quantiles for place in _positions(n, q, config.percentile)[:2]}) if n else []
        for name, n in histogram.weight.items()
    }


def thresholds(
    histogram: Histogram, found: Mapping[tuple[str, int], Place], config: SelectionConfig
) -> dict[str, StratumCuts]:
    """Returns the cuts at the percentiles; what they keep is counted in one more pass."""
    strata = {}
    for name, n in histogram.weight.items():
        bounds: list[float | None] = []
        for q in threshold_quantiles(config.keep, config.which):
            bounds.append(None if q is None or not n else _quantile(found, name, *_positions(n, q, config.percentile)))
        strata[name] = StratumCuts.between(bounds[0], bounds[1])
    return strata


def _positions(n: int, q: Fraction, method: str) -> tuple[int, int, float]:
    """Returns two neighbouring ranks and the weight of the upper one; exact, where numpy rounds q first."""
    if method == "inverted_cdf":
        rank = max(-(-n * q.numerator // q.denominator) - 1, 0)
        return rank, rank, 0.0
    at = (n - 1) * q
    low = at.numerator // at.denominator
    return low, min(low + 1, max(n - 1, 0)), float(at - low)


def _quantile(found: Mapping[tuple[str, int], Place], name: str, low: int, high: int, weight: float) -> float:
    a, b = (float_of_key(found[name, rank].key) for rank in (low, high))
    if weight == 0 or a == b:
        return a
    return a + (b - a) * weight if weight < 0.5 else b - (b - a) * (1 - weight)  # numpy's own interpolation


@dataclass
class KeptCounts:
    """Rows under given cuts, by stratum: scored, kept, unscored, weight scored, weight kept."""

    strata: dict[str, np.ndarray] = field(default_factory=dict)

    def merge(self, other: "KeptCounts") -> "KeptCounts":
        """Returns the sum of two shards' counts."""
        zero = np.zeros(5, np.int64)
        names = {**self.strata, **other.strata}
        return KeptCounts({name: self.strata.get(name, zero) + other.strata.get(name, zero) for name in names})


@dataclass(frozen=True)
class KeptPass:
    """Counts what given cuts keep, and warns where that is not the share that was asked for."""

    config: SelectionConfig
    manifest: Manifest

    def empty(self) -> KeptCounts:
        """Returns the counts of no rows."""
        return KeptCounts()

    def count(self, rows: Rows) -> KeptCounts:
        """Returns the counts of one shard."""
        values = np.asarray(rows.values, dtype=np.float64)
        mask = self.manifest.keep(values, rows.doc_ids, rows.strata)
        scored = ~np.isnan(values)
        weight = np.ones(len(values), np.int64) if rows.weights is None else np.asarray(rows.weights, np.int64)
        names, codes = codes_of(rows.strata, len(values))
        counts = KeptCounts()
        for name, here in zip(names, rows_by_code(codes, len(names)), strict=True):
            kept = mask[here] & scored[here] if name in self.manifest.strata else np.zeros(len(mask[here]), bool)
            n = int(scored[here].sum())
            sums = [int(weight[here][part].sum()) for part in (scored[here], kept)]
            counts.strata[name] = np.array([n, int(kept.sum()), len(kept) - n, *sums], np.int64)
        return counts

    def then(self, counts: KeptCounts) -> Manifest:
        """Returns the manifest with its counts and warnings."""
        return warned(counted(self.manifest, counts), self.config)


@dataclass(frozen=True)
class _FrozenPass(KeptPass):
    """Counts what frozen cut-offs keep of a new crawl, and how far its scores have moved."""

    histogram: Histogram

    def then(self, counts: KeptCounts) -> Manifest:
        """Returns the frozen manifest with this crawl's counts, drift and warnings."""
        frozen = self.manifest
        manifest = replace(
            counted(frozen, counts), mode=self.config.mode, keep_unscored=self.config.keep_unscored, warnings=()
        )
        if frozen.profile is not None:
            ks, psi = frozen.profile.distances(self.histogram.pooled())
            scored = sum(cuts.weight_scored for cuts in manifest.strata.values())
            kept = sum(cuts.weight_kept for cuts in manifest.strata.values())
            share = round(kept / scored, 6) if scored else 0.0
            manifest = replace(manifest, drift=Drift(ks, psi, share, float(Fraction(frozen.fraction))))
        return warned(manifest, self.config)


def counted(manifest: Manifest, counts: KeptCounts) -> Manifest:
    """Returns the manifest with the given counts; rows of strata that it does not know are summed in ``n_unknown``."""
    names = ("n_scored", "n_kept", "n_unscored", "weight_scored", "weight_kept")
    zero = np.zeros(5, np.int64)
    strata = {
        name: replace(cuts, **dict(zip(names, counts.strata.get(name, zero).tolist(), strict=True)))
        for name, cuts in manifest.strata.items()
    }
    unknown = {name: row for name, row in counts.strata.items() if name not in strata}
    return replace(manifest, strata=strata, n_unknown={n: int(r[0] + r[2]) for n, r in sorted(unknown.items())})


def warned(manifest: Manifest, config: SelectionConfig) -> Manifest:
    """Returns the manifest with a warning for each thing that a person should know; they are logged too."""
    wanted = Fraction(manifest.fraction)
    off = [(n, c) for n, c in manifest.strata.items() if c.weight_scored and abs(c.share - wanted) > OFF]
    warnings = [_off_by(name, cuts, manifest, config) for name, cuts in off[:WARNINGS]]
    if len(off) > WARNINGS:
        warnings.append(f"and so in {len(off) - WARNINGS} more strata")
    if manifest.n_unknown:
        n, names = sum(manifest.n_unknown.values()), list(manifest.n_unknown)
        verb = "kept" if manifest.keep_unscored else "removed"
        warnings.append(
            f"{n} rows of {len(names)} strata that the frozen cut-offs do not know ({', '.join(map(repr, names[:5]))}) "
            f"are {verb} like rows without a score; resolve new cut-offs to select among them"
        )
    if manifest.drift is not None and manifest.drift.major:
        warnings.append(
            f"the scores by {manifest.column!r} are distributed otherwise than when the cut-offs were frozen "
            f"(population stability index {manifest.drift.psi:.2f}, Kolmogorov-Smirnov distance "
            f"{manifest.drift.ks:.2f}): resolve new cut-offs, or look for what changed in the crawl"
        )
    for text in warnings:
        log.warning(text)
    return replace(manifest, warnings=tuple(warnings))


def _off_by(name: str, cuts: StratumCuts, manifest: Manifest, config: SelectionConfig) -> str:
    where = f" in stratum {name!r}" if name != EVERYTHING else ""
    of = f"{cuts.n_scored} scored rows" if manifest.weight == ROWS else f"{cuts.weight_scored} {manifest.weight}"
    why = {"threshold": "many scores tie or there are few rows", "cutoffs": "the scores drifted since it was frozen"}
    return (
        f"{config.mode} selection by {config.column!r} keeps {float(cuts.share):.1%} of {of}{where}, "
        f"not {float(Fraction(manifest.fraction)):.1%}: {why.get(config.mode, '')}; mode 'rank' keeps the exact share"
    )
