"""Exact selection by score: bottom, middle or top of an order that no sharding and no retry can change.

Rows are ordered by (score, 64-bit hash of the document id). A selection is resolved in passes over the shards that are
only counts, so they merge in any order: the first gives a histogram, the next find the rows at the wanted places. What
comes out is a manifest of a few integers that any shard applies to its own rows.

Source: "When Less is More" (arXiv 2309.04564v1), section 3.3, for bottom, middle, top and the percentiles.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.errors import ConfigError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.order import Ids, Strata
from corpusmill.pruning.radix import Histogram
from corpusmill.pruning.resolution import Pass, first_pass, kept_ranks, threshold_quantiles
from corpusmill.pruning.score_columns import (
    Rows,
    check_columns,
    column_values,
    columns_read,
    rows_of,
    single_score_key,
    strata_of,
)

__all__ = [
    "Histogram",
    "Manifest",
    "Rows",
    "check_columns",
    "column_values",
    "columns_read",
    "frozen_cutoffs",
    "kept_ranks",
    "merged_counts",
    "resolve",
    "rows_of",
    "select",
    "single_score_key",
    "start",
    "strata_of",
    "threshold_quantiles",
]

CRAWL = "crawl:"
"""Prefix of ``cutoffs`` that names a crawl of ``ops.cutoffs`` instead of a file."""

Shards = Callable[[], Iterable[Rows]]
"""Gives the shards anew for each pass, in any order."""


def select(values: Any, doc_ids: Ids, config: SelectionConfig, strata: Strata = None, weights: Any = None) -> Manifest:
    """Returns the manifest of a selection over rows that are all in memory; apply it with `Manifest.keep`.

    Args:
        values: float64 scores; NaN is "no score".
        doc_ids: Document ids, or a uint64 array that is the tie-break itself.
        config: What to keep.
        strata: One label per row, or None.
        weights: int64 weight of each row, or None: 1.
    """
    rows = Rows(np.asarray(values, dtype=np.float64), doc_ids, strata, weights)
    return resolve(config, lambda: [rows])


def resolve(config: SelectionConfig, shards: Shards, score_key: str = "", first: Any = None) -> Manifest:
    """Returns the manifest that keeps what ``config`` asks for.

    Memory is bounded by one shard, the histogram (at most 65,536 counts a stratum) and 2^18 rows.

    Args:
        config: What to keep.
        shards: Gives the shards, once per pass: the histogram, then one where fewer than 2^18 rows share the boundary
            bins, else up to seven; ``sample`` takes one more before, ``threshold`` and ``cutoffs`` one after.
        score_key: Identity of the scores, see `corpusmill.pruning.scoring.score_key`; stored in the manifest.
        first: Merged counts of the first pass, where they are known already.

    Raises:
        ConfigError: A frozen manifest is not readable or was made for other scores.
        PermanentDataError: The shards are not the same in each pass, or hold scores that cannot be sampled by.
    """
    step = start(config, score_key)
    state = step.then(merged_counts(step, shards()) if first is None else first)
    while not isinstance(state, Manifest):
        state = state.then(merged_counts(state, shards()))
    return state


def start(config: SelectionConfig, score_key: str = "") -> Pass:
    """Returns the first pass of a selection; `corpusmill.pruning.resolution` says what follows."""
    return first_pass(config, frozen_cutoffs(config, score_key) if config.mode == "cutoffs" else None, score_key)


def merged_counts(step: Pass, shards: Iterable[Rows]) -> Any:
    """Returns one pass's counts of all shards; merging them in another order gives the same."""
    counts = step.empty()
    for rows in shards:
        counts = counts.merge(step.count(rows))
    return counts


def frozen_cutoffs(config: SelectionConfig, score_key: str = "") -> Manifest:
    """Returns the manifest that ``config.cutoffs`` names, checked to be one for these scores.

    Raises:
        ConfigError: It cannot be read, or it was resolved for another column, seed, weight, strata or score key.
    """
    source = config.cutoffs
    if isinstance(source, str) and source.startswith(CRAWL):
        raise ConfigError(
            f"cutoffs={source!r} names a crawl of a lakehouse, which only a run of a recipe can look up; give the "
            "manifest's file here"
        )
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
            ("weight", config.weight, manifest.weight),
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
