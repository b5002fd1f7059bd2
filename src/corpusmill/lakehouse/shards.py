"""What a worker leaves behind: Parquet files of one shard, and a manifest that names them.

Nothing here is visible to readers. Files lie at attempt-unique paths; the manifest lies at a path fixed by commit key,
table and shard and is written whole, so of several attempts at a shard the last manifest names the winner and the
others' files are orphans. Manifests are plain JSON, never pickled pyiceberg objects (equal if their paths are).
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow

from corpusmill.errors import LakehouseError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import StoredFile, delete_file, file_size, list_files, read_whole, write_whole
from corpusmill.lakehouse.table import LakeTable

ROW_GROUP_ROWS = 10_000
BUFFER_BYTES = 64 << 20
"""Arrow bytes after which a row group is written even if it has fewer rows."""
FILE_BYTES = 512 << 20
"""Size at which a new Parquet file is begun."""
ZSTD_LEVEL = 3


class RowsRefusedError(LakehouseError, Permanent):
    """Rows do not fit the table or the partition they were written to."""


@dataclass(frozen=True)
class RunToken:
    """Who commits, and what.

    Attributes:
        recipe: Recipe name.
        crawl: Crawl id; with the recipe it names the line of runs that supersede each other.
        run_id: The orchestrator's run id.
        epoch: Fencing number from `epochs.take_epoch`.
        key: Commit key: identifies the content (design decision 9).
        versions: For the snapshot properties: ``corpusmill`` (code), ``config`` (settings fingerprint), models.
    """

    recipe: str
    crawl: str
    run_id: str
    epoch: int
    key: str
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def line(self) -> str:
        """Name of the line of runs in which a higher epoch supersedes a lower one."""
        return f"{self.recipe}/{self.crawl}"


@dataclass(frozen=True)
class ShardFile:
    """One Parquet file of a shard: its URI, rows and bytes."""

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class ShardManifest:
    """The result of one shard, as its committer reads it.

    Attributes:
        table: Identifier of the table.
        stage: Table name, for messages.
        shard: Shard name.
        key: Commit key.
        epoch: Epoch of the run that wrote it.
        files: Its files; none where the shard kept no row.
        report: The shard's report, as given to `ShardWriter.finish`.
    """

    table: str
    stage: str
    shard: str
    key: str
    epoch: int
    files: tuple[ShardFile, ...]
    report: Mapping[str, Any] = field(hash=False)

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(f.rows for f in self.files)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Returns the manifest that was written as JSON."""
        return cls(**{**values, "files": tuple(ShardFile(**f) for f in values["files"])})


class ShardWriter:
    """Writes one shard's rows of one partition; a context manager that deletes its files where the shard fails.

    Rows are buffered into row groups and sorted inside each by input file and the table's sort columns.

    Args:
        table: The table.
        partition: Partition column values; every row must hold them.
        run: Identity of the run.
        shard: Shard name.
        file_bytes: Size at which a new file is begun.
    """

    def __init__(
        self, table: LakeTable, partition: Mapping[str, str], run: RunToken, shard: str, *, file_bytes: int = FILE_BYTES
    ) -> None:
        self._table = table
        self._partition = {column: str(value) for column, value in partition.items()}
        table.partition_path(partition)
        self._run = run
        self._shard = shard
        self._file_bytes = file_bytes
        self._io: PyArrowFileIO = table.iceberg.io
        self._schema = schema_to_pyarrow(table.iceberg.schema())
        self._sort = [c for c in ("warc_file", *table.spec.sort) if c in self._schema.names]
        self._buffer: list[pa.Table] = []
        self._files: list[ShardFile] = []
        self._written: list[str] = []
        self._stream: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._abandon()

    def write(self, rows: pa.Table) -> None:
        """Takes rows of the table's columns, in any column order.

        Raises:
            RowsRefusedError: Columns, nulls or partition values do not fit.
        """
        if rows.num_rows == 0:
            return
        self._buffer.append(self._fitted(rows))
        if (
            sum(t.num_rows for t in self._buffer) >= ROW_GROUP_ROWS
            or sum(t.get_total_buffer_size() for t in self._buffer) >= BUFFER_BYTES
        ):
            self._flush()

    def finish(self, report: Mapping[str, Any]) -> ShardManifest:
        """Closes the files and writes the manifest; the last thing a worker does.

        Args:
            report: Small JSON mapping, kept with the manifest.
        """
        self.close()
        manifest = ShardManifest(
            table=self._table.identifier,
            stage=self._table.spec.name,
            shard=self._shard,
            key=self._run.key,
            epoch=self._run.epoch,
            files=tuple(self._files),
            report=dict(report),
        )
        location = manifest_location(warehouse_of(self._table), self._table.identifier, self._run, self._shard)
        write_whole(self._io, location, json.dumps(asdict(manifest), sort_keys=True, ensure_ascii=True).encode())
        return manifest

    def close(self) -> tuple[ShardFile, ...]:
        """Writes what is buffered and returns the finished files, without a manifest."""
        self._flush()
        self._end_file()
        return tuple(self._files)

    def _fitted(self, rows: pa.Table) -> pa.Table:
        names = self._schema.names
        if set(rows.column_names) != set(names):
            raise RowsRefusedError(
                f"{self._table.identifier}: rows have columns {rows.column_names}, expected {names}; "
                f"missing {sorted(set(names) - set(rows.column_names))}, "
                f"unknown {sorted(set(rows.column_names) - set(names))}"
            )
        try:
            fitted = rows.select(names).cast(self._schema)
        except (pa.ArrowInvalid, ValueError) as error:
            raise RowsRefusedError(f"{self._table.identifier}: rows do not fit the table: {error}") from error
        for column, value in self._partition.items():
            held = pc.unique(fitted[column].cast(pa.string())).to_pylist()
            if held != [value]:
                raise RowsRefusedError(
                    f"{self._table.identifier}: rows hold {column}={held[:5]!r}, expected {value!r}: the shard is of "
                    f"partition {self._partition!r}"
                )
        return fitted

    def _flush(self) -> None:
        if not self._buffer:
            return
        rows = pa.concat_tables(self._buffer)
        self._buffer = []
        if self._sort:
            rows = rows.sort_by([(c, "ascending") for c in self._sort])
        for start in range(0, rows.num_rows, ROW_GROUP_ROWS):
            part = rows.slice(start, ROW_GROUP_ROWS)
            if self._writer is None:
                self._begin_file()
            assert self._writer is not None
            self._writer.write_table(part, row_group_size=ROW_GROUP_ROWS)
            self._rows += part.num_rows
            if self._stream.tell() >= self._file_bytes:
                self._end_file()

    def _begin_file(self) -> None:
        folder = "/".join(f"{c}={quote(self._partition[c], safe='')}" for c in self._table.spec.partition)
        name = f"{self._run.epoch}-{quote(self._shard, safe='')}-{uuid.uuid4().hex[:8]}.parquet"
        path = f"{self._table.location}/data/{folder}/{name}"
        self._written.append(path)
        self._stream = self._io.new_output(path).create()
        dictionary = [c for c in self._table.spec.low_cardinality if c in self._schema.names]
        self._writer = pq.ParquetWriter(
            self._stream,
            self._schema,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            use_dictionary=dictionary,  # type: ignore[arg-type]  # the stub knows only bool
        )

    def _end_file(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._stream.close()
        path = self._written[-1]
        self._files.append(ShardFile(path, self._rows, int(file_size(self._io, path) or 0)))
        self._writer, self._stream, self._rows = None, None, 0

    def _abandon(self) -> None:
        """Deletes the files of a shard that failed; a killed process cannot, and leaves orphans instead."""
        self._buffer = []
        if self._writer is not None:
            self._writer.close()
            self._stream.close()
            self._writer = None
        for path in self._written:
            delete_file(self._io, path)


def manifest_folder(warehouse: str, table: str, run: RunToken) -> str:
    """Returns the folder that holds the manifests of all shards of one commit."""
    parts = [quote(part, safe="") for part in (run.recipe, run.crawl, run.key, table)]
    return "/".join([warehouse, "_runs", *parts])


def manifest_location(warehouse: str, table: str, run: RunToken, shard: str) -> str:
    """Returns where the manifest of a shard lies: fixed by commit key, table and shard."""
    return f"{manifest_folder(warehouse, table, run)}/{quote(shard, safe='')}.json"


def warehouse_of(table: LakeTable) -> str:
    """Returns the warehouse's URI from a table's location, ``WAREHOUSE/NAMESPACE/TABLE``."""
    return table.location.rsplit("/", 2)[0]


def find_manifest(lake: Lakehouse, table: str, run: RunToken, shard: str) -> ShardManifest | None:
    """Returns the manifest of a shard that was written for the same commit key, if all its files are still there.

    A manifest that is found is written again, so that its age shows that somebody relies on it: upkeep spares the files
    of manifests, and expires those that nobody relied on for long.
    """
    location = manifest_location(lake.settings.warehouse, table, run, shard)
    data = read_whole(lake.io, location)
    if data is None:
        return None
    manifest = ShardManifest.from_json(json.loads(data))
    if any(file_size(lake.io, f.path) != f.bytes for f in manifest.files):
        return None
    write_whole(lake.io, location, data)
    return manifest


def stored_manifests(lake: Lakehouse, table: str) -> list[tuple[StoredFile, ShardManifest]]:
    """Returns every manifest of a table, of any run, with the file that holds it."""
    found = []
    for stored in list_files(lake.io, f"{lake.settings.warehouse}/_runs"):
        ours = stored.location.endswith(".json") and stored.location.split("/")[-2] == quote(table, safe="")
        if ours and (data := read_whole(lake.io, stored.location)) is not None:
            found.append((stored, ShardManifest.from_json(json.loads(data))))
    return found


def read_manifests(lake: Lakehouse, table: str, run: RunToken) -> list[ShardManifest]:
    """Returns the manifests of all shards of one commit, by shard name."""
    found = []
    for stored in list_files(lake.io, manifest_folder(lake.settings.warehouse, table, run)):
        if stored.location.endswith(".json") and (data := read_whole(lake.io, stored.location)) is not None:
            found.append(ShardManifest.from_json(json.loads(data)))
    return sorted(found, key=lambda m: m.shard)
