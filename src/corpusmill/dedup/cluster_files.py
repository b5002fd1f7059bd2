"""Edges and clusters from Parquet files to Parquet files: what an engine that shuffles has to do, and the embedded one.

Both engines, this and `corpusmill.dedup.spark_clusters`, give equal edges and clusters for equal files.

| file | columns | order |
|---|---|---|
| band | ``key`` binary(16), ``doc_id`` string | (key, doc_id), over all files of a band one after another |
| edges | ``doc_id``, ``lowest``: the lowest id of its bucket, another one | any |
| clusters | ``doc_id``, ``root``: the lowest id of its cluster, its own for that one | doc_id |
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.dedup.clusters import bucket_rows, check_order, connected_components, key_words
from corpusmill.errors import DataError

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array

EDGES = pa.schema([pa.field("doc_id", pa.large_string()), pa.field("lowest", pa.large_string())])
CLUSTERS = pa.schema([pa.field("doc_id", pa.large_string()), pa.field("root", pa.large_string())])

BATCH_ROWS = 500_000
"""Rows of a file in memory at a time."""


class ClusterEngine(Protocol):
    """Does the two steps of near deduplication that shuffle."""

    def band_edges(self, band: Sequence[str], edges: str) -> None:
        """Writes the edges of one band: each document of a bucket with the bucket's lowest id.

        Args:
            band: Files of the band's keys, see the module.
            edges: File or folder to write; replaced if it is there.
        """
        ...

    def components(self, edges: Sequence[str], clusters: str) -> None:
        """Writes the connected components of all edges.

        Args:
            edges: Files or folders of edges, in any order.
            clusters: File or folder to write; replaced if it is there. It holds the documents of edges only.
        """
        ...


class EmbeddedClusters:
    """One process, by kernels: a batch of keys in memory, and about 100 bytes a document that has an edge."""

    def band_edges(self, band: Sequence[str], edges: str) -> None:
        """Writes the edges of one band.

        Raises:
            DataError: The keys, or the ids of one key, are not in order.
        """
        join = _NamedBandJoin()
        _write(edges, EDGES, (join.edges(batch) for batch in _batches(band, ["key", "doc_id"])))

    def components(self, edges: Sequence[str], clusters: str) -> None:
        """Writes the connected components of all edges."""
        ids = _sorted_ids(edges)
        roots = connected_components(len(ids), (_numbered(batch, ids) for batch in _batches(edges, EDGES.names)))
        _write(clusters, CLUSTERS, [pa.table([ids, ids.take(roots)], schema=CLUSTERS)])


class _NamedBandJoin:
    """Joins the keys of one band batch by batch, with documents by their names."""

    def __init__(self) -> None:
        self._last_key: bytes | None = None
        self._last_id = self._lowest = ""

    def edges(self, batch: pa.Table) -> pa.Table:
        """Returns the edges of the next batch of rows."""
        ids = _whole(batch["doc_id"])
        words = key_words(batch["key"].combine_chunks() if batch.num_rows else pa.array([], pa.binary(16)))
        if not len(words):
            return EDGES.empty_table()
        first, last = words[0].tobytes(), words[-1].tobytes()
        check_order(words, first, self._last_key)
        rows = bucket_rows(words, first == self._last_key)
        members = ids.take(rows[:, 0])
        lowest = _take(ids, rows[:, 1], self._lowest)
        self._check_ids(ids, rows[:, 0], members)
        in_bucket = len(rows) > 0 and rows[-1, 0] == len(words) - 1
        self._lowest = lowest[-1].as_py() if in_bucket else ids[-1].as_py()
        self._last_key, self._last_id = last, ids[-1].as_py()
        return pa.table([members, lowest], schema=EDGES)

    def _check_ids(self, ids: Strings, rows: npt.NDArray[np.int64], members: Strings) -> None:
        before = _take(ids, rows - 1, self._last_id)
        fallen = pc.index(pc.less_equal(members, before), True).as_py()
        if fallen >= 0:
            raise DataError(
                f"doc_id={members[fallen].as_py()!r} does not follow {before[fallen].as_py()!r} in its bucket; "
                "sort a band by (key, doc_id), each document once"
            )


def _take(ids: Strings, rows: npt.NDArray[np.int64], otherwise: str) -> Strings:
    """Returns the ids of rows, another one for row -1."""
    places: Any = pa.array(rows, mask=rows < 0)
    return ids.take(places).fill_null(otherwise)


def _batches(paths: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    """Yields the rows of files, and of the files of folders, in order."""
    for path in paths:
        place = Path(path)
        for file in sorted(place.glob("*.parquet")) if place.is_dir() else [place]:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=columns):
                yield pa.Table.from_batches([batch])


def _sorted_ids(edges: Sequence[str]) -> Strings:
    """Returns the ids of all edges, each once, in order."""
    found: Strings = pa.array([], pa.large_string())
    for batch in _batches(edges, EDGES.names):
        found = pc.unique(pa.concat_arrays([found, *(_whole(batch[name]) for name in EDGES.names)]))
    return found.take(pc.sort_indices(found))


def _numbered(batch: pa.Table, ids: Strings) -> npt.NDArray[np.int64]:
    """Returns edges by the places of their ends in sorted ids."""
    ends = [pc.index_in(_whole(batch[name]), ids).to_numpy(zero_copy_only=False) for name in EDGES.names]
    return np.stack(ends, axis=1).astype(np.int64)


def _whole(column: Any) -> Strings:
    return column.cast(pa.large_string()).combine_chunks()


def _write(target: str, schema: pa.Schema, tables: Any) -> None:
    """Writes a file, which appears whole or not at all."""
    place = Path(target)
    partial = place.with_name(f"{place.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    partial.replace(place)
