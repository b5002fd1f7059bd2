"""Joins kept sequences with their scores into the rows that a trainer reads: ``<recipe>.corpus_sequences``."""

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.sequence_sums import holding
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.selection_record import StoredSelection, stored_selection
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import CORPUS_SEQUENCES, SCORES, SEQUENCES

SPAN_COLUMNS = ("sequence_id", "n_tokens", "spans")
"""Columns that say which documents a sequence holds; token ids are left out."""

SCORE_COLUMNS = """
  s.nll_sum / nullif(s.n_scored, 0) as mean_nll,
  case when s.nll_sum / nullif(s.n_scored, 0) < 700 then exp(s.nll_sum / nullif(s.n_scored, 0)) end as perplexity,
  s.nll_sum / ln(2) / nullif(s.n_bytes, 0) as bits_per_byte,
  s.el2n_sum / nullif(s.n_scored, 0) as el2n, s.memorization
""".strip()
"""SQL of the published scores, from a row ``s`` of sums."""


def selected_sequences(
    lake: Lakehouse,
    plan: RunPlan,
    files: Sequence[str],
    chosen: StoredSelection,
    retracted: Column | None = None,
    columns: Sequence[str] = tuple(SEQUENCES.schema.names),
) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Yields (input file, its kept sequences in order, the scores of all its sequences).

    Args:
        lake: The lakehouse.
        plan: The run whose committed stages are joined.
        files: Input files.
        chosen: The selection.
        retracted: Ids of documents that must not be published; a sequence with a token of one is left out.
        columns: Columns of the sequences to read; `SPAN_COLUMNS` at least.
    """
    packed, packed_at = input_table(lake, plan, "pack")
    scored, scored_at = input_table(lake, plan, "score")
    streams = zip(
        packed.iter_groups(packed_at, groups=files, columns=list(columns)),
        scored.iter_groups(scored_at, groups=files, columns=list(SCORES.schema.names)),
        strict=True,
    )
    for (name, sequences), (_, scores) in streams:
        if retracted is not None:
            sequences = _without(sequences, holding(sequences, retracted))
        units = sequences.rename_columns({"sequence_id": "doc_id"})
        yield name, chosen.keep(units, scores).rename_columns({"doc_id": "sequence_id"}), scores


def sequence_groups(
    lake: Lakehouse,
    plan: RunPlan,
    files: Sequence[str],
    *,
    retracted: Column | None = None,
    selection: StoredSelection | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """Yields (input file, rows of `schema.CORPUS_SEQUENCES`) for each file; arguments as for `selected_sequences`."""
    chosen = selection or stored_selection(lake, plan)
    fingerprint = plan.parsed_recipe().method_fingerprint()
    for name, sequences, scores in selected_sequences(lake, plan, files, chosen, retracted):
        yield name, _joined(sequences, scores, fingerprint)


def _without(sequences: pa.Table, ids: Column) -> pa.Table:
    return sequences.filter(pc.invert(pc.is_in(sequences["sequence_id"], value_set=ids.combine_chunks())))


def _joined(sequences: pa.Table, scores: pa.Table, fingerprint: str) -> pa.Table:
    """Returns the sequences with their scores; token ids stay out of the database."""
    n = sequences.num_rows
    connection = duckdb.connect()
    try:
        units = pa.Table.from_arrays([sequences["sequence_id"], pa.array(range(n))], names=["doc_id", "place"])
        connection.register("units", units)
        connection.register("scores", scores)
        found = connection.sql(_SCORES).to_arrow_table()
    finally:
        connection.close()
    rows = sequences.append_column("recipe_fingerprint", pa.array([fingerprint] * n, pa.large_string()))
    for column in found.column_names:
        rows = rows.append_column(column, found[column])
    return rows.select(CORPUS_SEQUENCES.schema.names).cast(CORPUS_SEQUENCES.schema)


_SCORES = f"select {SCORE_COLUMNS} from units u left join scores s using (doc_id) order by u.place"
