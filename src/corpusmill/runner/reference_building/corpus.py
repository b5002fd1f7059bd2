"""Reads the corpus of a reference model as a stream: documents of a lakehouse table or of files, split by their ids.

The order is fixed by the content (partitions, input files and document ids in order; files by name), so equal content
gives equal packed text on every machine. Memory is bounded by one input file of a table, or one document of a file.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq

from corpusmill.errors import PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import open_location
from corpusmill.lakehouse.table import LakeTable
from corpusmill.pruning.corpus_split import is_within
from corpusmill.reference_model_recipe import CorpusConfig, ReferenceModelRecipe
from corpusmill.runner.reference_building.plan import ReferencePlan, corpus_files, corpus_partitions
from corpusmill.schema import doc_id_of

Role = Literal["train", "validation"]
PARQUET_ROWS = 1024


class CorpusDocument(NamedTuple):
    """A document with the id that decides its part."""

    doc_id: str
    text: str


@dataclass
class CorpusReader:
    """Documents of a corpus by role; every pass reads it anew, so a table must not change between two.

    Attributes:
        recipe: Names corpus, split and held-out share.
        lake: The lakehouse of a table.
        partitions: Partition keys of the table, as they were planned.
        left_out: Documents of the last pass that were too short or too long.
    """

    recipe: ReferenceModelRecipe
    lake: Lakehouse
    partitions: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    @classmethod
    def of(cls, lake: Lakehouse, plan: ReferencePlan) -> "CorpusReader":
        """Returns the reader of a plan's corpus."""
        return cls(plan.parsed(), lake, dict(plan.source.get("partitions", {})))

    def documents(self, role: Role) -> Iterator[CorpusDocument]:
        """Yields the documents that are trained on, or those that are held out."""
        corpus = self.recipe.corpus
        self.left_out = 0
        for document in self._all():
            if self.role_of(document.doc_id) != role:
                continue
            if corpus.min_characters <= len(document.text) <= corpus.max_characters:
                yield document
            else:
                self.left_out += 1

    def role_of(self, doc_id: str) -> Role | None:
        """Returns what a document is for; None: it belongs to the other part of the split."""
        corpus = self.recipe.corpus
        part = None if corpus.split is None else corpus.split.split().part_of(doc_id)
        if corpus.purpose == "memorization":
            return "train" if part == "pool" else "validation"
        if part == "pool":
            return None
        seed = 0 if corpus.split is None else corpus.split.seed
        return (
            "validation" if is_within(doc_id, Fraction(self.recipe.validation.share), seed, "validation") else "train"
        )

    def _all(self) -> Iterator[CorpusDocument]:
        if self.recipe.corpus.files:
            for path in corpus_files(self.recipe.corpus):
                yield from file_documents(path)
        else:
            yield from self._table_documents(self.lake.table(str(self.recipe.corpus.table)))

    def _table_documents(self, table: LakeTable) -> Iterator[CorpusDocument]:
        columns = [c for c in ("doc_id", "text", "kept") if c in table.spec.schema.names]
        for partition in corpus_partitions(table, _crawls(self.recipe.corpus, self.partitions, table)):
            path = table.partition_path(partition)
            if table.partition_key(partition) != self.partitions[path]:
                raise PermanentDataError(
                    f"{table.identifier} of {path} changed after the build was planned; start a new run"
                )
            groups = _input_files(self.lake, table, partition)
            for _, rows in table.iter_groups(partition, groups=groups, columns=columns):
                for row in rows.to_pylist():
                    if row.get("kept", True) and row["text"]:
                        yield CorpusDocument(row["doc_id"], row["text"])


def file_documents(path: Path) -> Iterator[CorpusDocument]:
    """Yields the documents of a file by its ending: .jsonl, .parquet, or text in which blank lines part documents.

    Raises:
        PermanentDataError: The file is damaged or not in its format; the message names the place.
    """
    name = path.name.removesuffix(".gz")
    number = 0
    try:
        rows = _parquet_rows(path) if name.endswith(".parquet") else _text_rows(path, name)
        for row in rows:
            text = row["text"]
            if not isinstance(text, str):
                raise TypeError(f"'text' is {type(text).__name__}")
            given = row.get("doc_id") or row.get("id")
            yield CorpusDocument(str(given) if given is not None else doc_id_of(None, path.name, number + 1), text)
            number += 1  # last: an error is always one of the document after those that were read
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentDataError(
            f"{path} document {number + 1}: {error!r}; expected JSON lines or Parquet with 'text', or plain text"
        ) from error


def _text_rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        if name.endswith((".jsonl", ".json")):
            yield from (json.loads(line) for line in file if line.strip())
            return
        lines: list[str] = []
        for line in file:
            if line.strip():
                lines.append(line)
            elif lines:
                yield {"text": "".join(lines).rstrip("\n")}
                lines = []
        if lines:
            yield {"text": "".join(lines).rstrip("\n")}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        columns = [c for c in ("text", "doc_id", "id") if c in file.schema_arrow.names]
        for batch in file.iter_batches(PARQUET_ROWS, columns=columns):
            yield from batch.to_pylist()


def _crawls(corpus: CorpusConfig, planned: dict[str, str], table: LakeTable) -> tuple[str, ...]:
    """Returns the crawls that were planned: one that was published since is not read."""
    found = {table.partition_of(path).get("crawl", "") for path in planned}
    return tuple(sorted(found - {""})) or corpus.crawls


def _input_files(lake: Lakehouse, table: LakeTable, partition: dict[str, str]) -> list[str]:
    """Returns the names of a partition's input files; one column is read, a row group at a time."""
    names: set[str] = set()
    for uri in table.data_files(partition):
        filesystem, path = open_location(lake.io, uri)
        with filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(1 << 16, columns=["warc_file"]):
                names.update(map(str, batch.column(0).unique().to_pylist()))
    return sorted(names)
