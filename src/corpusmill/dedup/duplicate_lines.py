"""Lines or paragraphs that stand in a crawl more than once: the first of each stays, the others are removed.

First means in the document with the lowest id, and there at the first place; so the answer is a function of the crawl's
documents, not of files, shards or order. A document that would lose too much goes as a whole; what it was the first to
hold then stays with the next document that has it, so that every line that is removed from a document stands in one
that is left.

Places and digests of units are rows of a scratch database that sorts and joins on disk (DuckDB); texts are read once.
In memory are `MEMORY`, the ids of the crawl's documents and one input file.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.batches import Column
from corpusmill.dedup.config import LinesConfig
from corpusmill.dedup.text_units import unit_digest, unit_spans
from corpusmill.schema import DUPLICATE_LINES, REMOVED_UNIT, STRING

if TYPE_CHECKING:
    Ids: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Ids: TypeAlias = pa.Array

MEMORY = "512MB"
"""What the scratch database may keep in memory."""
BATCH_UNITS = 100_000
"""Units that are handed to the database at a time, and removals that are read back."""
SHORTENED = "shortened"
TOO_LITTLE_LEFT = "deduplicate.lines_too_little_left"
NOTHING_LEFT = "deduplicate.lines_nothing_left"

_UNITS = {"high": np.uint64, "low": np.uint64, "place": np.uint64, "file": np.int64, "start": np.int64, "end": np.int64}
_DOCUMENTS = {"doc": np.int64, "n_units": np.int64, "n_chars": np.int64}
_SQL_TYPES = {np.uint64: "ubigint", np.int64: "bigint"}
Numbers = npt.NDArray[np.int64]


class DuplicateLines:
    """Collects the units of a crawl, then tells what each document loses; a context manager for its scratch folder.

    Args:
        crawl: Crawl id.
        doc_ids: Ids of all documents that will be added; others are refused.
        files: Input files; answers come in this order.
        config: Settings.
        batch_units: Units handed over at a time.
        scratch: Folder in which the scratch folder is made; None: the system's for temporary files.
    """

    def __init__(
        self,
        crawl: str,
        doc_ids: Ids,
        files: Sequence[str],
        config: LinesConfig,
        batch_units: int = BATCH_UNITS,
        scratch: Path | None = None,
    ) -> None:
        self._crawl, self._config = crawl, config
        self._files = {file: number for number, file in enumerate(files)}
        self._ids = np.sort(np.array([str(i).encode() for i in doc_ids.to_pylist()], dtype=np.bytes_))
        self._scratch, self._batch_units = scratch, batch_units
        self._units: list[tuple[int, ...]] = []
        self._documents: list[tuple[int, ...]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="corpusmill-lines-", dir=self._scratch)
        settings = {"memory_limit": MEMORY, "threads": 1, "temp_directory": f"{self._folder.name}/spilled"}
        self._database = duckdb.connect(str(Path(self._folder.name) / "units.duckdb"), config=settings)
        self._database.execute("set preserve_insertion_order = false")
        for name, columns in (("units", _UNITS), ("documents", _DOCUMENTS)):
            described = ", ".join(f'"{column}" {_SQL_TYPES[type_]}' for column, type_ in columns.items())
            self._database.execute(f"create table {name} ({described})")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, file: str, doc_ids: Column, texts: Column) -> None:
        """Takes documents of one input file, each once.

        Args:
            file: One of the input files.
            doc_ids: Their ids.
            texts: Their texts.

        Raises:
            KeyError: An id or the file was not announced.
        """
        number = self._files[file]
        for doc_id, text in zip(doc_ids, texts, strict=True):
            self._add(number, str(doc_id.as_py()), str(text.as_py()))

    def _add(self, file: int, doc_id: str, text: str) -> None:
        rank = int(np.searchsorted(self._ids, doc_id.encode()))
        if rank == len(self._ids) or self._ids[rank] != doc_id.encode():
            raise KeyError(f"document {doc_id!r} is not among the {len(self._ids)} that were announced")
        n_units = n_chars = 0
        for span in unit_spans(text, self._config.unit):
            digest = unit_digest(text[span.start : span.end], self._config.min_words)
            if digest is not None:
                high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
                self._units.append((high, low, rank << 32 | n_units, file, *span))
                if len(self._units) >= self._batch_units:
                    self._insert("units", _UNITS, self._units)
            n_units += 1
            n_chars += span.end - span.start
        self._documents.append((rank, n_units, n_chars))
        if len(self._documents) >= self._batch_units:
            self._insert("documents", _DOCUMENTS, self._documents)

    def _insert(self, name: str, columns: dict[str, Any], rows: list[tuple[int, ...]]) -> None:
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [
            pa.array(np.array(column, dtype=type_)) for column, type_ in zip(values, columns.values(), strict=True)
        ]
        self._database.register("batch", pa.table(dict(zip(columns, arrays, strict=True))))
        self._database.execute(f"insert into {name} select * from batch")
        self._database.unregister("batch")
        rows.clear()

    def rows(self) -> Iterator[pa.Table]:
        """Yields the documents that lose something, rows of `schema.DUPLICATE_LINES`, by file and document id."""
        self._insert("units", _UNITS, self._units)
        self._insert("documents", _DOCUMENTS, self._documents)
        for step in _FIND:
            self._database.execute(step, {"max_removed": self._config.max_removed} if "$" in step else None)
        pending: list[pa.Table] = []
        for batch in self._database.sql(_REMOVALS).to_arrow_reader(self._batch_units):
            pending.append(pa.Table.from_batches([batch]))
            found = pa.concat_tables(pending).combine_chunks()
            starts = _document_starts(found)
            if len(starts) > 1:  # all documents but the last are whole
                yield self._documents_of(found.slice(0, starts[-1]), starts[:-1])
                pending = [found.slice(starts[-1])]
            else:
                pending = [found]
        if pending and pending[0].num_rows:
            yield self._documents_of(pending[0], _document_starts(pending[0]))

    def _documents_of(self, removals: pa.Table, starts: Numbers) -> pa.Table:
        column = {name: removals[name].to_numpy() for name in removals.column_names}
        offsets = np.append(starts, removals.num_rows)
        units = pa.StructArray.from_arrays(
            [
                pa.array(column["unit"], pa.int64()),
                pa.array(column["start"], pa.int64()),
                pa.array(column["end"], pa.int64()),
                self._names(column["first_doc"]),
                pa.array(column["first_unit"], pa.int64()),
            ],
            fields=list(REMOVED_UNIT),
        )
        n_chars, lost = column["n_chars"][starts], column["n_chars_removed"][starts]
        whole = column["dropped"][starts].astype(bool)
        reasons = np.where(whole, np.where(lost == n_chars, NOTHING_LEFT, TOO_LITTLE_LEFT), SHORTENED)
        files = np.array(list(self._files), dtype=object)[column["file"][starts]]
        columns = {
            "crawl": pa.array([self._crawl] * len(starts), STRING),
            "doc_id": self._names(column["doc"][starts]),
            "warc_file": pa.array(files, STRING),
            "kept": pa.array(~whole),
            "reason": pa.array(reasons, STRING),
            "unit": pa.array([self._config.unit] * len(starts), STRING),
            "n_units": pa.array(column["n_units"][starts], pa.int64()),
            "n_units_removed": pa.array(np.diff(offsets), pa.int64()),
            "n_chars": pa.array(n_chars, pa.int64()),
            "n_chars_removed": pa.array(lost, pa.int64()),
            "removed": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), units),
        }
        return pa.table([columns[f.name] for f in DUPLICATE_LINES.schema], schema=DUPLICATE_LINES.schema)

    def _names(self, ranks: Numbers) -> Ids:
        return pa.array([i.decode() for i in self._ids[ranks].tolist()], STRING)


def _document_starts(removals: pa.Table) -> Numbers:
    documents = removals["doc"].to_numpy()
    return np.flatnonzero(np.append(True, documents[1:] != documents[:-1])[: len(documents)]).astype(np.int64)


_FIND = (
    """create table repeated as
select high, low, min(place) as first from units group by high, low having count(*) > 1""",
    """create table copies as
select u.*, u.place >> 32 as doc, r.first from units u join repeated r using (high, low)""",
    """create table dropped as
select d.doc from documents d join
  (select doc, sum("end" - "start") as lost from copies where place <> first group by doc) l on l.doc = d.doc
where l.lost = d.n_chars or l.lost::double > $max_removed * d.n_chars::double""",
    """create table holders as
select high, low, min(place) as first from copies where doc not in (select doc from dropped) group by high, low""",
    """create table removals as
select file, place, doc, "start", "end", first, true as dropped from copies
where place <> first and doc in (select doc from dropped)
union all
select c.file, c.place, c.doc, c."start", c."end", h.first, false as dropped
from copies c join holders h using (high, low)
where c.place <> h.first and c.doc not in (select doc from dropped)""",
    """create table losses as
select doc, sum("end" - "start")::bigint as n_chars_removed from removals group by doc""",
)
"""Digests with more than one place, their places, the documents that lose too much, who holds a unit without these."""

_REMOVALS = """
select r.file, r.doc::bigint as doc, (r.place & 4294967295)::bigint as unit, r."start", r."end",
  (r.first >> 32)::bigint as first_doc, (r.first & 4294967295)::bigint as first_unit, r.dropped, d.n_units, d.n_chars,
  l.n_chars_removed
from removals r join documents d on d.doc = r.doc join losses l on l.doc = r.doc
order by r.file, r.place
"""
