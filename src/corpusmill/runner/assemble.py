"""Joins what the stages decided into the rows of the published corpus.

A published document went through every stage: kept by the rules, no duplicate, kept by both refiners, scored and
selected. Its row holds the final text, its scores and where it came from. Everything is read from committed tables, so
a crawl can be assembled again at any time without a model, for instance when an older crawl takes over documents.

Where sequences are selected, the corpus holds the documents with a token in a kept sequence (decision 0007).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.sequence_sums import document_sums
from corpusmill.runner.assemble_sequences import SCORE_COLUMNS, SPAN_COLUMNS, selected_sequences
from corpusmill.runner.inputs import surviving_documents, without
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.score_shards import DOMAIN, score_groups
from corpusmill.runner.selection_record import StoredSelection, stored_selection
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import CORPUS, SCORES

PAGE_COLUMNS = ("doc_id", "url", "warc_offset", "warc_length", "fetch_time")
DOCUMENT_COLUMNS = ("doc_id", "language_score", "dedup_digest")


def corpus_groups(
    lake: Lakehouse,
    plan: RunPlan,
    files: Sequence[str],
    *,
    duplicates: Column | None = None,
    selection: StoredSelection | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """Yields (input file, rows of `schema.CORPUS`) for each file, sorted by language and document id.

    Args:
        lake: The lakehouse.
        plan: The run whose committed stages are joined.
        files: Input files.
        duplicates: Ids of removed duplicates in place of the committed ones (an assembly on another base).
        selection: Selection in place of the committed one.
    """
    pages, pages_at = input_table(lake, plan, "ingest")
    documents, documents_at = input_table(lake, plan, "clean")
    chosen = selection or stored_selection(lake, plan)
    fingerprint = plan.parsed_recipe().method_fingerprint()
    streams = zip(
        _final_texts(lake, plan, files, duplicates),
        pages.iter_groups(pages_at, groups=files, columns=list(PAGE_COLUMNS)),
        documents.iter_groups(documents_at, groups=files, columns=list(DOCUMENT_COLUMNS)),
        _chosen(lake, plan, files, chosen, duplicates),
        strict=True,
    )
    for (name, texts), (_, page_rows), (_, document_rows), (keep, score_rows) in streams:
        yield name, _joined(keep(texts), page_rows, document_rows, score_rows, fingerprint)


def _chosen(
    lake: Lakehouse, plan: RunPlan, files: Sequence[str], chosen: StoredSelection, duplicates: Column | None
) -> Iterator[tuple[Callable[[pa.Table], pa.Table], pa.Table]]:
    """Yields what picks a file's selected documents, and the documents' scores."""
    if plan.packs_sequences:
        for _, sequences, scores in selected_sequences(lake, plan, files, chosen, duplicates, SPAN_COLUMNS):
            sums = document_sums(sequences, scores)
            yield partial(_among, ids=sums["doc_id"]), sums
        return
    for _, scores in _scores(lake, plan, files):
        yield partial(chosen.keep, scores=scores), scores


def _among(documents: pa.Table, ids: Column) -> pa.Table:
    return documents.filter(pc.is_in(documents["doc_id"], value_set=ids.combine_chunks()))


def _final_texts(
    lake: Lakehouse, plan: RunPlan, files: Sequence[str], duplicates: Column | None
) -> Iterator[tuple[str, pa.Table]]:
    """Yields each file's documents with their final text, by the committed or the given deduplication."""
    if duplicates is None:
        yield from surviving_documents(lake, plan, files, upto="score")
        return
    for name, rows in surviving_documents(lake, plan, files, upto="score", check_duplicates=False):
        yield name, without(rows, duplicates)


def _scores(lake: Lakehouse, plan: RunPlan, files: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    recipe = plan.parsed_recipe()
    if recipe.score is None:
        for name in files:
            yield name, SCORES.schema.empty_table()
        return
    by_domain = [DOMAIN] if recipe.select is not None and DOMAIN in recipe.select.by else []
    yield from score_groups(lake, plan, files, [*SCORES.schema.names, *by_domain])


def _joined(texts: pa.Table, pages: pa.Table, documents: pa.Table, scores: pa.Table, fingerprint: str) -> pa.Table:
    connection = duckdb.connect()
    try:
        for name, table in {"texts": texts, "pages": pages, "documents": documents, "scores": scores}.items():
            connection.register(name, table)
        rows = connection.sql(_JOIN, params={"fingerprint": fingerprint}).to_arrow_table()
    finally:
        connection.close()
    return rows.select(CORPUS.schema.names).cast(CORPUS.schema)


_JOIN = f"""
select t.crawl, t.doc_id, p.url, t.language, d.language_score, t.text, length(t.text) as n_chars, s.n_tokens,
  {SCORE_COLUMNS}, d.dedup_digest, t.warc_file,
  p.warc_offset, p.warc_length, p.fetch_time, $fingerprint as recipe_fingerprint
from texts t join pages p using (doc_id) join documents d using (doc_id) left join scores s using (doc_id)
order by t.language, t.doc_id
"""
