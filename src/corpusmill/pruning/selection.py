"""Exact selection by score: bottom, middle or top of an order that no sharding and no retry can change.

Rows are ordered by (score, 64-bit hash of the document id). A selection is resolved in passes over the shards that are
only counts, so they merge in any order: the first gives a histogram, the next find the rows at the wanted ranks. What
comes out is a manifest of a few integers that any shard applies to its own rows.

Source: "When Less is More" (arXiv 2309.04564v1), section 3.3, for bottom, middle, top and the percentiles.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import END, START, Cut, Manifest, StratumCuts, with_unknown
from corpusmill.pruning.el2n import mean_el2n
from corpusmill.pruning.order import EVERYTHING, Ids, Strata, codes_of, float_of_key, random_scores
from corpusmill.pruning.perplexity import bits_per_byte, mean_nll
from corpusmill.pruning.radix import Descent, Histogram

__all__ = [
    "Histogram",
    "Manifest",
    "Rows",
    "column_values",
    "resolve",
    "rows_of",
    "select",
    "single_score_key",
    "strata_of",
]

log = logging.getLogger(__name__)


class Rows(NamedTuple):
    """The rows of one shard, as selection sees them.

    Attributes:
        values: float64 scores; NaN stands for "no score" and is excluded and counted.
        doc_ids: Document ids (hashed for ties with the seed), or a uint64 array that is the tie-break itself.
        strata: One label per row, or None for a single stratum.
    """

    values: Any
    doc_ids: Ids
    strata: Strata = None


Shards = Callable[[], Iterable[Rows]]
"""Gives the shards anew for each pass, in any order."""


def select(values: Any, doc_ids: Ids, config: SelectionConfig, strata: Strata = None) -> Manifest:
    """Returns the manifest of a selection over rows that are all in memory; apply it with `Manifest.keep`."""
    rows = Rows(np.asarray(values, dtype=np.float64), doc_ids, strata)
    return resolve(Histogram.of(rows.values, strata), config, lambda: [rows])


def resolve(histogram: Histogram, config: SelectionConfig, shards: Shards, score_key: str = "") -> Manifest:
    """Returns the manifest that keeps what ``config`` asks for.

    Args:
        histogram: Merged histograms of all shards (the first pass).
        config: What to keep.
        shards: Gives the same shards again, once per further pass (one where fewer than a million rows share a
            boundary bin, else up to seven).
        score_key: Identity of the scores, see `corpusmill.pruning.scoring.score_key`; stored in the manifest.

    Raises:
        ConfigError: A frozen manifest is not readable or was made for other scores.
        PermanentDataError: The shards are not those of the histogram.
    """
    if config.mode == "cutoffs":
        manifest = frozen_cutoffs(config, score_key)
        return _counted(manifest, shards, config)
    if config.mode == "threshold":
        return _counted(_resolve_thresholds(histogram, config, shards, score_key), shards, config)
    ranks = {name: kept_ranks(n, config.keep, config.which) for name, n in histogram.n_scored.items()}
    inner = {name: sorted({r for r in pair if 0 < r < histogram.n_scored[name]}) for name, pair in ranks.items()}
    cuts = _cuts_at(histogram, config.seed, shards, inner)
    strata = {}
    for name, (lo, hi) in ranks.items():
        n = histogram.n_scored[name]
        edges = {0: START, n: END} if n else {0: START}
        strata[name] = StratumCuts(
            lo=edges.get(lo) or cuts[name, lo],
            hi=edges.get(hi) or cuts[name, hi],
            n_scored=n,
            n_kept=hi - lo,
            n_unscored=histogram.n_unscored[name],
        )
    return _manifest(config, score_key, strata)


def kept_ranks(n: int, fraction: Fraction, which: str) -> tuple[int, int]:
    """Returns the half-open range of kept ranks among n scored rows in ascending order.

    k = round_half_up(n * fraction); bottom [0, k), middle [(n-k)//2, (n-k)//2 + k), top [n-k, n).
    """
    k = (2 * n * fraction.numerator + fraction.denominator) // (2 * fraction.denominator)
    lo = {"bottom": 0, "middle": (n - k) // 2, "top": n - k}[which]
    return lo, lo + k


def threshold_quantiles(fraction: Fraction, which: str) -> tuple[Fraction | None, Fraction | None]:
    """Returns the lower and upper quantile between which scores are kept, both inclusive; None is an open end.

    Source: arXiv 2309.04564v1, section 3.3: the middle 30 % lies between the 35th and the 65th percentile.
    """
    if which == "bottom":
        return None, fraction
    if which == "top":
        return 1 - fraction, None
    return (1 - fraction) / 2, (1 + fraction) / 2


def frozen_cutoffs(config: SelectionConfig, score_key: str = "") -> Manifest:
    """Returns the manifest that ``config.cutoffs`` names, checked to be one for these scores.

    Raises:
        ConfigError: It cannot be read, or it was resolved for another column, seed, strata or score key.
    """
    source = config.cutoffs
    if isinstance(source, str) and not source.lstrip().startswith("{"):
        try:
            source = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cutoffs={config.cutoffs!r} cannot be read ({error}); expected the JSON file of a selection manifest"
            ) from error
    assert source is not None, "SelectionConfig asks for cutoffs in this mode"
    manifest = Manifest.from_json(source)
    wrong = [
        f"{name}={ours!r} but the manifest has {theirs!r}"
        for name, ours, theirs in (
            ("column", config.column, manifest.column),
            ("by", config.by, manifest.by),
            ("seed", config.seed, manifest.seed),
        )
        if ours != theirs
    ]
    if score_key and manifest.score_key and score_key != manifest.score_key:
        wrong.append(f"the scores have key {score_key!r} but the manifest was made for {manifest.score_key!r}")
    if wrong:
        raise ConfigError(
            f"frozen cut-offs do not fit: {'; '.join(wrong)}. Scores of different models or settings cannot be "
            "compared: resolve a new manifest, or score with the old model"
        )
    return manifest


def _cuts_at(
    histogram: Histogram, seed: int, shards: Shards, ranks: dict[str, list[int]]
) -> dict[tuple[str, int], Cut]:
    descent = Descent(histogram, seed, ranks)
    while descent.open:
        counts = None
        for rows in shards():
            part = descent.count(rows.values, rows.doc_ids, rows.strata)
            counts = part if counts is None else counts.merge(part)
        if counts is None:
            raise PermanentDataError("selection was given no shards; expected those of the histogram")
        descent.advance(counts)
    return descent.cuts


def _resolve_thresholds(histogram: Histogram, config: SelectionConfig, shards: Shards, score_key: str) -> Manifest:
    wanted: dict[str, list[int]] = {}
    for name, n in histogram.n_scored.items():
        quantiles = [q for q in threshold_quantiles(config.keep, config.which) if q is not None]
        positions = [_positions(n, q, config.percentile) for q in quantiles]
        wanted[name] = [rank for low, high, _ in positions for rank in (low, high)] if n else []
    cuts = _cuts_at(histogram, config.seed, shards, wanted)
    strata = {}
    for name, n in histogram.n_scored.items():
        bounds: list[float | None] = []
        for q in threshold_quantiles(config.keep, config.which):
            bounds.append(None if q is None or not n else _quantile(cuts, name, *_positions(n, q, config.percentile)))
        strata[name] = StratumCuts.between(bounds[0], bounds[1], n_scored=n, n_unscored=histogram.n_unscored[name])
    return _manifest(config, score_key, strata)


def _positions(n: int, q: Fraction, method: str) -> tuple[int, int, float]:
    """Returns two neighbouring ranks and the weight of the upper one; exact, where numpy rounds q first."""
    if method == "inverted_cdf":
        rank = max(-(-n * q.numerator // q.denominator) - 1, 0)
        return rank, rank, 0.0
    at = (n - 1) * q
    low = at.numerator // at.denominator
    return low, min(low + 1, max(n - 1, 0)), float(at - low)


def _quantile(cuts: dict[tuple[str, int], Cut], name: str, low: int, high: int, weight: float) -> float:
    a, b = (float_of_key(cuts[name, rank].key) for rank in (low, high))
    if weight == 0 or a == b:
        return a
    return a + (b - a) * weight if weight < 0.5 else b - (b - a) * (1 - weight)  # numpy's own interpolation


def _manifest(config: SelectionConfig, score_key: str, strata: dict[str, StratumCuts]) -> Manifest:
    return Manifest(
        column=config.column,
        fraction=config.fraction,
        which=config.which,
        mode=config.mode,
        by=config.by,
        seed=config.seed,
        keep_unscored=config.keep_unscored,
        score_key=score_key,
        strata=dict(sorted(strata.items())),
    )


def _counted(manifest: Manifest, shards: Shards, config: SelectionConfig) -> Manifest:
    """Returns the manifest with its kept rows, counted in one pass, and a warning where they are not the fraction."""
    scored: dict[str, int] = {}
    kept: dict[str, int] = {}
    unscored: dict[str, int] = {}
    for rows in shards():
        values = np.asarray(rows.values, dtype=np.float64)
        mask = manifest.keep(values, rows.doc_ids, rows.strata)
        names, codes = codes_of(rows.strata, len(values))
        missing = np.isnan(values)
        for code, name in enumerate(names):
            here = codes == code
            scored[name] = scored.get(name, 0) + int((here & ~missing).sum())
            unscored[name] = unscored.get(name, 0) + int((here & missing).sum())
            kept[name] = kept.get(name, 0) + int((here & mask & ~missing).sum())
    strata = {
        name: cuts.counted(scored.get(name, 0), kept.get(name, 0), unscored.get(name, 0))
        for name, cuts in with_unknown(manifest.strata, scored).items()
    }
    warnings = tuple(_off_by(name, cuts, config) for name, cuts in strata.items() if _is_off(cuts, config))
    for text in warnings:
        log.warning(text)
    return manifest.replaced(strata=strata, warnings=warnings, mode=config.mode, keep_unscored=config.keep_unscored)


def _is_off(cuts: StratumCuts, config: SelectionConfig) -> bool:
    return cuts.n_scored > 0 and abs(Fraction(cuts.n_kept, cuts.n_scored) - config.keep) > Fraction(1, 100)


def _off_by(name: str, cuts: StratumCuts, config: SelectionConfig) -> str:
    share = cuts.n_kept / cuts.n_scored
    where = f" in stratum {name!r}" if name != EVERYTHING else ""
    why = {"threshold": "many scores tie or there are few rows", "cutoffs": "the scores drifted since it was frozen"}
    return (
        f"{config.mode} selection by {config.column!r} keeps {share:.1%} of {cuts.n_scored} scored rows{where}, "
        f"not {float(config.keep):.1%}: {why.get(config.mode, '')}; mode 'rank' keeps the exact share"
    )


def column_values(scores: pa.Table, column: str, seed: int = 0) -> np.ndarray:
    """Returns the float64 scores to select by, NaN where a row has none.

    Args:
        scores: Rows of the score table (`corpusmill.schema.SCORES`).
        column: One of `SelectionConfig.column`'s names, or a numeric column of the table.
        seed: Seed of ``random``, which every row has.

    Raises:
        ConfigError: There is no such column, or it does not hold numbers.
        PermanentDataError: A stored score is NaN; it must be null where there is none.
    """
    if column == "random":
        return random_scores(scores.column("doc_id"), seed)
    if column in DERIVED:
        over, under, derive = DERIVED[column]
        return derive(_floats(scores, over), _floats(scores, under))
    return _floats(scores, column)


DERIVED: dict[str, tuple[str, str, Callable[[Any, Any], np.ndarray]]] = {
    "mean_nll": ("nll_sum", "n_scored", mean_nll),
    "perplexity": ("nll_sum", "n_scored", mean_nll),
    "bits_per_byte": ("nll_sum", "n_bytes", bits_per_byte),
    "el2n": ("el2n_sum", "n_scored", mean_el2n),
    "teacher_forced_accuracy": ("hits", "n_scored", mean_nll),
}
"""Score by name: the sum, what it is divided by, and how. Perplexity is ordered by its logarithm."""


def _floats(scores: pa.Table, column: str) -> np.ndarray:
    if column not in scores.column_names:
        known = sorted({*DERIVED, "random", *_numeric(scores)})
        raise ConfigError(f"column={column!r} is not a score of this table; expected one of {known}")
    if column not in _numeric(scores):
        raise ConfigError(f"column={column!r} holds {scores.schema.field(column).type}; a selection needs numbers")
    values = scores.column(column).cast(pa.float64())
    floats = np.asarray(values.to_numpy(), dtype=np.float64)  # null becomes NaN
    if n := int(np.isnan(floats).sum()) - values.null_count:
        raise PermanentDataError(
            f"column {column!r} holds NaN in {n} rows; a row without a score must be null, so the scoring run is broken"
        )
    return floats


def _numeric(scores: pa.Table) -> list[str]:
    return [f.name for f in scores.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]


def strata_of(scores: pa.Table, by: Sequence[str]) -> list[str] | None:
    """Returns one stratum label per row: the values of the columns ``by`` joined by ``|``, null as ``""``.

    Raises:
        ConfigError: A column does not exist.
    """
    if not by:
        return None
    if missing := [name for name in by if name not in scores.column_names]:
        raise ConfigError(f"by={tuple(by)!r}: {missing} are not columns of the scores; expected {scores.column_names}")
    columns = [scores.column(name).to_pylist() for name in by]
    return ["|".join("" if value is None else str(value) for value in row) for row in zip(*columns, strict=True)]


def rows_of(scores: pa.Table, config: SelectionConfig) -> Rows:
    """Returns one shard of the score table as selection sees it."""
    values = column_values(scores, config.column, config.seed)
    return Rows(values, scores.column("doc_id"), strata_of(scores, config.by))


def single_score_key(keys: Iterable[str]) -> str:
    """Returns the one score key that all rows share, ``""`` for no rows.

    Raises:
        PermanentDataError: Rows were scored with different models or settings and cannot be ordered together.
    """
    distinct = sorted(set(keys))
    if len(distinct) > 1:
        raise PermanentDataError(
            f"scores with {len(distinct)} different keys ({distinct[:4]}) cannot be mixed in one selection: they come "
            "from different models, revisions, dtypes or windows; score all rows with one setting"
        )
    return distinct[0] if distinct else ""
