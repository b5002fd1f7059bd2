"""Counts over all documents of an audit branch, streamed: what Great Expectations does not need to see row by row.

Exact and independent of the order and size of batches. Memory: about 110 bytes a document (ids, digests, lengths and
scores are held until the end); texts are not held.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.schema import CORPUS

QUANTILES = (10, 50, 90)
"""Percent ranks that are reported."""
SCORES = ("mean_nll", "el2n")
"""Score columns whose quantiles are reported."""
NO_LANGUAGE = "none"
"""Name under which documents without an identified language are counted."""


def corpus_metrics(table_batches: Iterable[pa.Table]) -> dict[str, float | int | str | None]:
    """Returns the metrics of documents with the columns of `corpusmill.schema.CORPUS`.

    Args:
        table_batches: The documents; a column that a batch lacks counts as null in all its rows.

    Returns:
        ``n_documents``, ``n_chars``, ``n_tokens`` (null counts as 0), ``nulls.<column>`` for every column,
        ``n_duplicate_doc_ids`` and ``n_duplicate_digests`` (rows beyond the first of each value),
        ``language_share.<language>`` (shares of documents, sum 1), and ``n_chars_pQ``, ``mean_nll_pQ``, ``el2n_pQ``
        for Q of 10, 50, 90 (nearest rank: the value at rank ceil(Q/100 * n); None where no document has a value).
    """
    rows = 0
    nulls: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    values: dict[str, list[Any]] = {name: [] for name in ("doc_id", "dedup_digest", "n_chars", "n_tokens", *SCORES)}
    for table in table_batches:
        rows += table.num_rows
        for name in CORPUS.schema.names:
            nulls[name] += table[name].null_count if name in table.column_names else table.num_rows
        languages.update(_language_counts(table))
        for name, chunks in values.items():
            if name in table.column_names:
                chunks.extend(table[name].drop_null().chunks)
    metrics: dict[str, float | int | str | None] = {
        "n_documents": rows,
        "n_chars": sum(_sum(chunk) for chunk in values["n_chars"]),
        "n_tokens": sum(_sum(chunk) for chunk in values["n_tokens"]),
        "n_duplicate_doc_ids": duplicates(values["doc_id"]),
        "n_duplicate_digests": duplicates(values["dedup_digest"]),
    }
    metrics |= {f"nulls.{name}": nulls[name] for name in CORPUS.schema.names}
    metrics |= {f"language_share.{name}": languages[name] / rows for name in sorted(languages)}
    for name in ("n_chars", *SCORES):
        metrics |= quantiles(name, values[name])
    return metrics


def _language_counts(table: pa.Table) -> Counter[str]:
    if "language" not in table.column_names:
        return Counter({NO_LANGUAGE: table.num_rows})
    return Counter(name or NO_LANGUAGE for name in table["language"].to_pylist())


def _sum(chunk: Any) -> int:
    return pc.sum(chunk).as_py() or 0


def duplicates(chunks: list[Any]) -> int:
    """Returns the rows beyond the first of each value."""
    if not chunks:
        return 0
    column = pa.chunked_array(chunks)
    return len(column) - pc.count_distinct(column).as_py()


def quantiles(name: str, chunks: list[Any]) -> dict[str, float | int | str | None]:
    """Returns ``<name>_pQ`` for each percent rank Q, by nearest rank; None where there is no finite number."""
    numbers = np.concatenate([c.to_numpy(zero_copy_only=False) for c in chunks]) if chunks else np.zeros(0)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    n = len(numbers)
    return {f"{name}_p{q}": numbers[max(math.ceil(q * n / 100) - 1, 0)].item() if n else None for q in QUANTILES}
