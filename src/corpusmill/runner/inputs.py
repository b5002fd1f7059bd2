"""What each map stage reads: the rows of one input file at a time, joined from the tables before it.

A group is one WARC file's rows, so memory is bounded by one file, and neither sharding nor compaction changes what a
stage sees. Joins are by document id inside the group.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.duplicate_lines import shortened_texts
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import input_table

Group = tuple[str, pa.Table]


def stage_input(
    lake: Lakehouse, plan: RunPlan, stage: str, files: Sequence[str], columns: Sequence[str]
) -> Iterator[Group]:
    """Yields (input file, rows) for each file of a shard, with exactly the columns the stage names."""
    if stage == "clean":
        table, partition = input_table(lake, plan, "ingest")
        yield from table.iter_groups(partition, groups=files, columns=list(columns))
        return
    if stage == "score" and plan.packs_sequences:
        yield from packed_sequences(lake, plan, files, columns)
        return
    for name, rows in surviving_documents(lake, plan, files, upto=stage):
        yield name, rows.select(list(columns))


def packed_sequences(lake: Lakehouse, plan: RunPlan, files: Sequence[str], columns: Sequence[str]) -> Iterator[Group]:
    """Yields each file's sequences as scoring takes them: ``doc_id`` is the sequence's id, ``language`` is null."""
    table, partition = input_table(lake, plan, "pack")
    for name, rows in table.iter_groups(partition, groups=files):
        yield name, sequence_units(rows).select(list(columns))


def sequence_units(sequences: pa.Table) -> pa.Table:
    """Returns rows of `schema.SEQUENCES` under the names that scoring gives to what it scores."""
    units = sequences.rename_columns({"sequence_id": "doc_id"})
    return units.append_column("language", pa.nulls(units.num_rows, pa.large_string()))


def surviving_documents(
    lake: Lakehouse, plan: RunPlan, files: Sequence[str], *, upto: str, check_duplicates: bool = True
) -> Iterator[Group]:
    """Yields each file's documents that reach a stage, with the text the stage sees: without repeated lines.

    Args:
        lake: The lakehouse.
        plan: The run.
        files: Input files.
        upto: Stage that will read them: ``refine_documents``, ``refine_chunks`` or ``score``.
        check_duplicates: False leaves removed duplicates in, for a caller with a newer answer.
    """
    recipe = plan.parsed_recipe()
    documents, partition = input_table(lake, plan, "clean")
    columns = ["crawl", "doc_id", "warc_file", "language", "kept", "text"]
    streams = [_removed(lake, plan, files, "deduplicate")] if check_duplicates else []
    shorten = shortened_texts(lake, plan, files)
    if upto in ("refine_chunks", "score") and recipe.refine_documents is not None:
        streams.append(_removed(lake, plan, files, "refine_documents"))
    texts = _refined_texts(lake, plan, files) if upto == "score" and recipe.refine_chunks is not None else None
    for name, rows in documents.iter_groups(partition, groups=files, columns=columns):
        alive = rows.filter(rows["kept"])
        for stream in streams:
            _, out = next(stream)
            alive = without(alive, out)
        alive = next(shorten)(alive)
        if texts is not None:
            _, refined = next(texts)
            alive = replace_text(alive, refined)
        yield name, alive.drop_columns(["kept"])


def _removed(lake: Lakehouse, plan: RunPlan, files: Sequence[str], stage: str) -> Iterator[tuple[str, Column]]:
    """Yields (file, ids of the documents that a stage removed)."""
    table, partition = input_table(lake, plan, stage)
    for name, rows in table.iter_groups(partition, groups=files, columns=["doc_id", "kept"]):
        yield name, rows.filter(pc.invert(rows["kept"]))["doc_id"]


def _refined_texts(lake: Lakehouse, plan: RunPlan, files: Sequence[str]) -> Iterator[Group]:
    table, partition = input_table(lake, plan, "refine_chunks")
    for name, rows in table.iter_groups(partition, groups=files, columns=["doc_id", "kept", "text"]):
        yield name, rows.filter(rows["kept"]).select(["doc_id", "text"])


def without(rows: pa.Table, ids: Column) -> pa.Table:
    """Returns the rows whose ``doc_id`` is not among the given ids."""
    return rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=ids.combine_chunks()))) if len(ids) else rows


def replace_text(rows: pa.Table, refined: pa.Table) -> pa.Table:
    """Returns the rows that have a refined text, with that text; order is kept, the others are left out."""
    position = pc.index_in(rows["doc_id"], value_set=refined["doc_id"].combine_chunks())
    found = pc.is_valid(position)
    texts = refined["text"].take(position.filter(found))
    kept = rows.filter(found)
    return kept.set_column(kept.schema.get_field_index("text"), rows.schema.field("text"), texts)
