"""Explains one document: every measure, reason, program, score and where it is published."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import EqualTo, In

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse, NotInitialisedError
from corpusmill.lakehouse.table import LakeTable
from corpusmill.pruning.sequence_sums import holding
from corpusmill.runner.committed_plan import committed_plan
from corpusmill.runner.records import RecordNotFoundError
from corpusmill.schema import RECIPE_TABLES

HAS_SEQUENCES = ("sequences", "corpus_sequences")
"""Tables of packed sequences; they name their documents in spans."""


def explain(lake: Lakehouse, recipe: str, doc_id: str, crawl: str | None) -> dict[str, Any]:
    """Returns the document's rows in every table of a recipe, and the partition keys they belong to.

    Where sequences are packed, the document's are among them without their token ids, each with the document's spans
    only, and ``scores`` holds the scores of those sequences.

    Args:
        lake: The lakehouse.
        recipe: Namespace.
        doc_id: Document id.
        crawl: Crawl id; None looks in all crawls.
    """
    found: dict[str, Any] = {"doc_id": doc_id, "recipe": recipe}
    units = [doc_id]
    for spec in RECIPE_TABLES:
        rows: list[dict[str, Any]] = []
        found[spec.name] = rows
        try:
            table = lake.table(f"{recipe}.{spec.name}")
        except NotInitialisedError:
            if spec.name == "documents":
                raise
            continue  # a lakehouse of an older version lacks newer tables until the next `init`
        for partition in table.partitions():
            if crawl is not None and partition["crawl"] != crawl:
                continue
            for row in _rows_of(table, partition, doc_id, units, found):
                shown = {k: v for k, v in row.items() if v is not None}
                rows.append(shown | {"content_key": table.partition_key(partition)})
        if spec.name == "sequences":
            units += [row["sequence_id"] for row in rows]
    _show_removed_lines(lake, recipe, found)
    found["published"] = bool(found["corpus"])
    return found


def _show_removed_lines(lake: Lakehouse, recipe: str, found: Mapping[str, Any]) -> None:
    """Adds to each removed line what it says, from the document of its crawl, where that is still the one it counts in.

    A recipe that no longer removes lines leaves their table as it was, beside documents that may be others by now.
    """
    documents = {row["crawl"]: row for row in found["documents"]}
    for row in found["duplicate_lines"]:
        document, key = documents.get(row["crawl"]), _documents_key(lake, recipe, row["crawl"])
        if document is None or key != document["content_key"]:
            row["of_an_earlier_run"] = True
            continue
        for unit in row["removed"]:
            unit["text"] = document["text"][unit["start"] : unit["end"]]


def _documents_key(lake: Lakehouse, recipe: str, crawl: str) -> str | None:
    """Returns the content key of the documents that the stored lines of a crawl were found in, None if unknown."""
    try:
        plan = committed_plan(lake, recipe, crawl, "lines")
    except (RecordNotFoundError, ConfigError):
        return None
    return None if plan is None else plan.keys["clean"]


def _rows_of(
    table: LakeTable, partition: Mapping[str, str], doc_id: str, units: Sequence[str], found: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yields the rows of one partition that tell of a document; ``units`` are the ids that scores may have."""
    name = table.spec.name
    if name in HAS_SEQUENCES:
        files = {row["warc_file"] for row in found["documents"] if row["crawl"] == partition["crawl"]}
        yield from _sequences_of(table, partition, sorted(files), doc_id)
        return
    condition = In("doc_id", units) if name == "scores" else EqualTo("doc_id", doc_id)
    yield from table.scan(partition, filter=condition).to_pylist()


def _sequences_of(
    table: LakeTable, partition: Mapping[str, str], files: Sequence[str], doc_id: str
) -> Iterator[dict[str, Any]]:
    columns = [c for c in table.spec.schema.names if c != "tokens"]
    wanted = pa.chunked_array([[doc_id]], pa.large_string())
    for _, rows in table.iter_groups(partition, groups=files, columns=columns):
        ids = set(holding(rows, wanted).to_pylist())
        for row in rows.to_pylist():
            if row["sequence_id"] in ids:
                yield row | {"spans": [span for span in row["spans"] if span["doc_id"] == doc_id]}
