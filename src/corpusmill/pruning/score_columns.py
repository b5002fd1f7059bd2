"""Reads the score table as selection sees it: values to order by, weights, strata."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import ROWS
from corpusmill.pruning.el2n import mean_el2n
from corpusmill.pruning.order import Ids, Strata, random_scores
from corpusmill.pruning.perplexity import bits_per_byte, mean_nll


class Rows(NamedTuple):
    """The rows of one shard, as selection sees them.

    Attributes:
        values: float64 scores; NaN stands for "no score" and is excluded and counted.
        doc_ids: Document ids (hashed for ties with the seed), or a uint64 array that is the tie-break itself.
        strata: One label per row, or None for a single stratum.
        weights: int64 weight of each row, at least 0; None: every row weighs 1.
    """

    values: Any
    doc_ids: Ids
    strata: Strata = None
    weights: Any = None


DERIVED: dict[str, tuple[str, str, Callable[[Any, Any], np.ndarray]]] = {
    "mean_nll": ("nll_sum", "n_scored", mean_nll),
    "perplexity": ("nll_sum", "n_scored", mean_nll),
    "bits_per_byte": ("nll_sum", "n_bytes", bits_per_byte),
    "el2n": ("el2n_sum", "n_scored", mean_el2n),
    "teacher_forced_accuracy": ("hits", "n_scored", mean_nll),
    "top_k_hit_rate": ("top_k_hits", "n_scored", mean_nll),
    "excess_nll": ("excess_nll_sum", "n_scored", mean_nll),
}
"""Score by name: the sum, what it is divided by, and how. Perplexity is ordered by its logarithm."""


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


def columns_read(config: SelectionConfig) -> tuple[str, ...]:
    """Returns the columns of the score table that a selection reads."""
    if config.column in DERIVED:
        values: tuple[str, ...] = DERIVED[config.column][:2]
    else:
        values = () if config.column == "random" else (config.column,)
    weight = () if config.weight == ROWS else (config.weight,)
    return tuple(dict.fromkeys(("doc_id", "score_key", *values, *config.by, *weight)))


def check_columns(config: SelectionConfig, schema: pa.Schema) -> None:
    """Refuses a selection by columns that the score table lacks, before anything is read.

    Raises:
        ConfigError: A column does not exist or does not hold numbers.
    """
    rows_of(schema.empty_table(), config)


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


def weights_of(scores: pa.Table, weight: str) -> np.ndarray | None:
    """Returns the int64 weight of each row, None where every row counts as one.

    Raises:
        ConfigError: The column does not exist.
        PermanentDataError: A row has no weight, or a negative one.
    """
    if weight == ROWS:
        return None
    if weight not in scores.column_names:
        raise ConfigError(f"weight={weight!r} is not a column of the scores; expected one of {_numeric(scores)}")
    column = scores.column(weight)
    lowest = pc.min(column).as_py()
    if column.null_count or (lowest is not None and lowest < 0):
        raise PermanentDataError(
            f"weight={weight!r} is null in {column.null_count} rows and {lowest} at least; every row needs a weight of "
            "0 or more, so the scoring run is broken"
        )
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def rows_of(scores: pa.Table, config: SelectionConfig) -> Rows:
    """Returns one shard of the score table as selection sees it."""
    values = column_values(scores, config.column, config.seed)
    return Rows(values, scores.column("doc_id"), strata_of(scores, config.by), weights_of(scores, config.weight))


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
