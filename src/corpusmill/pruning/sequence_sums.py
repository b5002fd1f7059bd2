"""Figures of documents from the sequences that they were packed in.

A score belongs to a sequence. Its sums add up to a document's where the document is whole: it fills its sequences
alone, from its first token to its end token. Elsewhere a sequence's sum cannot be shared out, and the document
has none.
"""

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.schema import SCORES

SUMS = ("doc_id", "n_tokens", "n_bytes", "n_scored", "nll_sum", "el2n_sum", "memorization")
"""Columns of `document_sums`."""


def document_sums(sequences: pa.Table, scores: pa.Table) -> pa.Table:
    """Returns one row for each document with a token in the given sequences.

    Args:
        sequences: Rows with ``sequence_id``, ``n_tokens`` and ``spans``.
        scores: Rows of `schema.SCORES`, whose ``doc_id`` is the sequence's id; those of other sequences do not count.

    Returns:
        Columns `SUMS`, by document id. ``n_tokens``: tokens of the document in these sequences, its end token included.
        The rest is null unless the document fills its sequences alone and lacks no token; then they are exact sums over
        its sequences, and ``memorization`` is that of the first one.
    """
    connection = duckdb.connect()
    try:
        connection.register("sequences", sequences.select(["sequence_id", "n_tokens", "spans"]))
        connection.register("scores", scores)
        return connection.sql(_SUMS).to_arrow_table().select(list(SUMS)).cast(_SCHEMA)
    finally:
        connection.close()


def documents_of(sequences: pa.Table) -> Column:
    """Returns the ids of the documents that the sequences hold a token of; an id may occur more than once."""
    spans = pc.list_flatten(sequences["spans"])
    return pc.struct_field(spans, "doc_id")


def holding(sequences: pa.Table, documents: Column) -> Column:
    """Returns the ids of the sequences that hold a token of one of the documents."""
    parents = pc.list_parent_indices(sequences["spans"])
    held = pc.is_in(documents_of(sequences), value_set=documents.combine_chunks())
    return sequences["sequence_id"].take(pc.unique(parents.filter(held)))


_SCHEMA = pa.schema([pa.field(name, SCORES.schema.field(name).type) for name in SUMS])

_SUMS = """
with spans as (
  select sequence_id, n_tokens as length, unnest(spans, max_depth := 2) from sequences
), of_document as (
  select doc_id, cast(sum("end" - start) as bigint) as n_tokens,
    bool_and(start = 0 and "end" = length) and sum("end" - start) = max(document_tokens) as whole
  from spans group by doc_id
), scored as (
  select spans.doc_id, cast(sum(s.n_bytes) as bigint) as n_bytes, cast(sum(s.n_scored) as bigint) as n_scored,
    sum(s.nll_sum order by first_token) as nll_sum, sum(s.el2n_sum order by first_token) as el2n_sum,
    arg_min(s.memorization, first_token) as memorization, count(s.n_scored) = count(*) as complete
  from spans left join scores s on s.doc_id = spans.sequence_id group by spans.doc_id
)
select d.doc_id, d.n_tokens, c.n_bytes, c.n_scored, c.nll_sum, c.el2n_sum, c.memorization
from of_document d left join scored c
  on c.doc_id = d.doc_id and d.whole and c.complete
order by d.doc_id
"""
