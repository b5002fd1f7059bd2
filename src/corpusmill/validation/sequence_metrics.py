"""Counts over packed sequences, streamed: the contract that a trainer relies on.

Exact and independent of the order and size of batches. Memory: about 80 bytes a sequence and 40 a document; token ids
are looked at one batch at a time.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.validation.contract import Metric
from corpusmill.validation.metrics import SCORES, duplicates, quantiles


def sequence_metrics(
    table_batches: Iterable[pa.Table], length: int, documents: Column | None = None
) -> dict[str, Metric]:
    """Returns the metrics of packed sequences with the columns of `corpusmill.schema.SEQUENCES`.

    Args:
        table_batches: The sequences, with scores or without.
        length: Tokens that each of them must have.
        documents: Ids of the published documents, to compare with the sequences' owners; None compares nothing.

    Returns:
        ``n_sequences``, ``n_sequence_tokens``, ``n_sequences_of_other_length`` (tokens or their stated number),
        ``n_sequences_with_gaps`` (the spans do not cover the sequence exactly once, in order),
        ``n_duplicate_sequence_ids``; with documents also ``n_owners_not_published`` and
        ``n_documents_without_sequence``; with scores their quantiles, as `corpus_metrics` gives them.
    """
    numbers = dict.fromkeys(("n_sequences", "n_sequence_tokens", "n_sequences_of_other_length"), 0)
    numbers["n_sequences_with_gaps"] = 0
    held: dict[str, list[Any]] = {name: [] for name in ("sequence_id", *SCORES)}
    owners: list[Any] = []
    for table in table_batches:
        numbers["n_sequences"] += table.num_rows
        numbers["n_sequence_tokens"] += int(pc.sum(table["n_tokens"]).as_py() or 0)
        numbers["n_sequences_of_other_length"] += _of_other_length(table, length)
        numbers["n_sequences_with_gaps"] += sequences_with_gaps(table)
        owner = pc.struct_field(pc.list_flatten(table["spans"]), "doc_id")
        owners.append(pc.unique(owner).cast(pa.large_string()))
        for name, chunks in held.items():
            if name in table.column_names:
                chunks.extend(table[name].drop_null().chunks)
    metrics: dict[str, Metric] = {**numbers, "n_duplicate_sequence_ids": duplicates(held["sequence_id"])}
    if documents is not None:
        metrics |= _compared(pa.chunked_array(owners, pa.large_string()), documents)
    for name in SCORES:
        if held[name]:
            metrics |= quantiles(name, held[name])
    return metrics


def sequences_with_gaps(table: pa.Table) -> int:
    """Returns how many sequences have spans that do not cover them exactly once and in order."""
    n_spans = pc.list_value_length(table["spans"]).to_numpy()
    spans = pc.list_flatten(table["spans"])
    start, end = (pc.struct_field(spans, name).to_numpy() for name in ("start", "end"))
    parent = np.repeat(np.arange(table.num_rows), n_spans)
    first = np.diff(parent, prepend=-1) != 0
    last = np.diff(parent, append=table.num_rows) != 0
    expected = np.where(first, 0, np.roll(end, 1))
    wrong = (start != expected) | (start >= end) | (last & (end != table["n_tokens"].to_numpy()[parent]))
    return len(np.unique(parent[wrong])) + int((n_spans == 0).sum())


def _of_other_length(table: pa.Table, length: int) -> int:
    held, stated = pc.list_value_length(table["tokens"]).to_numpy(), table["n_tokens"].to_numpy()
    return int(((held != length) | (stated != length)).sum())


def _compared(owners: Column, documents: Column) -> dict[str, Metric]:
    distinct = pc.unique(owners)
    published = documents.cast(pa.large_string()).combine_chunks()
    return {
        "n_owners_not_published": len(distinct) - pc.is_in(distinct, value_set=published).true_count,
        "n_documents_without_sequence": len(published) - pc.is_in(published, value_set=distinct).true_count,
    }
