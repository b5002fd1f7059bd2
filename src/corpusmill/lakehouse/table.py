"""Reads a lakehouse table: one consistent view, by partition, and one input file's rows at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self
from urllib.parse import quote, unquote

import pyarrow as pa
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo
from pyiceberg.expressions.parser import parse
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import PrimitiveType

from corpusmill.errors import ConfigError, LakehouseError, Permanent
from corpusmill.schema import TableSpec

MAIN = "main"
SORT_PROPERTY = "corpusmill.sort"
LOW_CARDINALITY_PROPERTY = "corpusmill.low-cardinality"
PARTITION_PROPERTY = "corpusmill.partition."


class UnknownRefError(LakehouseError, Permanent):
    """A branch or tag does not exist."""


@dataclass(frozen=True)
class PartitionState:
    """What main holds for one partition, from table properties that were set in the committing transaction.

    Attributes:
        key: Content key.
        epoch: Epoch of the run that committed it last.
        rows: Rows; 0 for a partition that was committed empty.
        snapshot_id: Snapshot of that commit; it may have expired since.
        tag: Tag of the publication, None where the table is not published by tag.
        run: ``recipe/crawl/run_id`` of the run that committed it.
        epochs: Highest epoch and its run id of every ``recipe/crawl`` that committed to this partition.
    """

    key: str
    epoch: int
    rows: int
    snapshot_id: int
    tag: str | None = None
    run: str = ""
    epochs: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def to_properties(self, path: str) -> dict[str, str]:
        """Returns the table properties that hold this state."""
        prefix = f"{PARTITION_PROPERTY}{path}"
        commit = {"snapshot": self.snapshot_id, "tag": self.tag, "run": self.run, "epochs": dict(self.epochs)}
        return {
            f"{prefix}.key": self.key,
            f"{prefix}.epoch": str(self.epoch),
            f"{prefix}.rows": str(self.rows),
            f"{prefix}.commit": json.dumps(commit, sort_keys=True),
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: str) -> Self | None:
        """Returns a partition's state, None where nothing was committed to it."""
        prefix = f"{PARTITION_PROPERTY}{path}"
        if f"{prefix}.key" not in properties:
            return None
        commit = json.loads(properties[f"{prefix}.commit"])
        return cls(
            key=properties[f"{prefix}.key"],
            epoch=int(properties[f"{prefix}.epoch"]),
            rows=int(properties[f"{prefix}.rows"]),
            snapshot_id=commit["snapshot"],
            tag=commit["tag"],
            run=commit["run"],
            epochs={line: (epoch, run) for line, (epoch, run) in commit["epochs"].items()},
        )


class LakeTable:
    """A table as it was when it was opened. Open it again to see later commits.

    Args:
        identifier: Namespace and table.
        table: The pyiceberg table behind it.
    """

    def __init__(self, identifier: str, table: Table) -> None:
        self.identifier = identifier
        self._table = table

    def __repr__(self) -> str:
        return f"LakeTable({self.identifier!r}, snapshot={self.snapshot_id()})"

    @property
    def iceberg(self) -> Table:
        """The pyiceberg table, for the modules of this package only."""
        return self._table

    @property
    def location(self) -> str:
        """URI of the table's folder."""
        return str(self._table.location())

    @cached_property
    def spec(self) -> TableSpec:
        """Schema, partition, sort and dictionary columns, from the table's own metadata."""
        metadata = self._table.metadata
        schema = schema_to_pyarrow(metadata.schema(), include_field_ids=False)
        partition = tuple(metadata.schema().find_column_name(f.source_id) for f in metadata.spec().fields)
        return TableSpec(
            name=self.identifier.rpartition(".")[2],
            schema=schema,
            partition=partition,
            sort=tuple(json.loads(metadata.properties.get(SORT_PROPERTY, "[]"))),
            low_cardinality=tuple(json.loads(metadata.properties.get(LOW_CARDINALITY_PROPERTY, "[]"))),
        )

    def partition_path(self, partition: Mapping[str, str]) -> str:
        """Returns the partition's values in order, percent-quoted and joined by ``/``: its name in properties.

        Raises:
            ConfigError: The mapping does not name exactly the partition columns.
        """
        if set(partition) != set(self.spec.partition):
            raise ConfigError(
                f"partition={dict(partition)!r} of {self.identifier} must give exactly {list(self.spec.partition)}"
            )
        return "/".join(quote(str(partition[c]), safe="") for c in self.spec.partition)

    def partition_of(self, path: str) -> dict[str, str]:
        """Returns the partition that `partition_path` named."""
        return dict(zip(self.spec.partition, [unquote(v) for v in path.split("/")], strict=True))

    def partition_state(self, partition: Mapping[str, str]) -> PartitionState | None:
        """Returns what main holds for a partition, None where nothing was ever committed to it."""
        return PartitionState.from_properties(self._table.metadata.properties, self.partition_path(partition))

    def partition_key(self, partition: Mapping[str, str]) -> str | None:
        """Returns the content key of a partition on main, None where nothing was ever committed to it."""
        state = self.partition_state(partition)
        return state.key if state else None

    def partition_epoch(self, partition: Mapping[str, str]) -> int | None:
        """Returns the epoch of the run that committed a partition last, None where none ever did."""
        state = self.partition_state(partition)
        return state.epoch if state else None

    def partitions(self) -> list[Mapping[str, str]]:
        """Returns every partition that was committed on main, empty ones too, in order of their values."""
        ends = len(".key")
        paths = [
            name[len(PARTITION_PROPERTY) : -ends]
            for name in self._table.metadata.properties
            if name.startswith(PARTITION_PROPERTY) and name.endswith(".key")
        ]
        return sorted((self.partition_of(path) for path in paths), key=lambda p: list(p.values()))

    def refs(self) -> dict[str, int]:
        """Returns snapshot ids by branch and tag name."""
        return {name: ref.snapshot_id for name, ref in self._table.metadata.refs.items()}

    def snapshot_id(self, ref: str | None = None) -> int | None:
        """Returns the snapshot that a branch or tag points to; main's (None while it is empty) where none is named.

        Raises:
            UnknownRefError: There is no such branch or tag.
        """
        refs = self.refs()
        if ref is None or (ref == MAIN and MAIN not in refs):
            return refs.get(MAIN)
        if ref not in refs:
            raise UnknownRefError(f"{self.identifier} has no branch or tag {ref!r}; it has {sorted(refs)}")
        return refs[ref]

    def scan(
        self,
        partition: Mapping[str, str] | None,
        columns: Sequence[str] | None = None,
        filter: str | BooleanExpression | None = None,  # noqa: A002 - the name readers of tables expect
        ref: str | None = None,
    ) -> pa.Table:
        """Returns the rows of a partition, in the order of their files; sort where the order matters.

        Args:
            partition: Partition column values; None reads the whole table.
            columns: Columns to read; None reads all.
            filter: Condition in pyiceberg's language, for instance ``"kept == true and n_chars > 10"``.
            ref: Branch or tag; None reads main.
        """
        rows = self.row_filter(partition)
        if filter is not None:
            rows = And(rows, parse(filter) if isinstance(filter, str) else filter)
        return self._read(rows, self._plan(rows, ref), list(columns or self.spec.schema.names))

    def iter_groups(
        self,
        partition: Mapping[str, str],
        group_by: str = "warc_file",
        groups: Sequence[str] = (),
        columns: Sequence[str] | None = None,
        ref: str | None = None,
    ) -> Iterator[tuple[str, pa.Table]]:
        """Yields each named input file with its rows, sorted by the table's sort columns.

        Files are planned once; a group reads only the data files, and in them the row groups, whose statistics admit
        it. Memory is bounded by one group. A group without rows yields an empty table.

        Args:
            partition: Partition column values.
            group_by: Column that names the input file.
            groups: Input files, in the order wanted.
            columns: Columns to read; None reads all.
            ref: Branch or tag; None reads main.
        """
        wanted = list(columns or self.spec.schema.names)
        sort = [c for c in self.spec.sort if c in self.spec.schema.names]
        read = [*wanted, *(c for c in sort if c not in wanted)]
        rows = self.row_filter(partition)
        planned = [(task, *self._bounds(task, group_by)) for task in self._plan(rows, ref)]
        for group in groups:
            tasks = [t for t, low, high in planned if (low is None or low <= group) and (high is None or group <= high)]
            table = self._read(And(rows, EqualTo(group_by, group)), tasks, read)
            if sort and table.num_rows > 1:
                table = table.sort_by([(c, "ascending") for c in sort])
            yield group, table.select(wanted)

    def count(self, partition: Mapping[str, str] | None, ref: str | None = None) -> int:
        """Returns the number of rows of a partition (None: of the table), from file metadata."""
        return sum(int(task.file.record_count) for task in self._plan(self.row_filter(partition), ref))

    def data_files(self, partition: Mapping[str, str] | None, ref: str | None = None) -> list[str]:
        """Returns the URIs of a partition's Parquet files (None: of the table's), sorted."""
        return sorted(str(task.file.file_path) for task in self._plan(self.row_filter(partition), ref))

    def row_filter(self, partition: Mapping[str, str] | None) -> BooleanExpression:
        """Returns the condition that a partition's rows fulfil; values are cast to the column's type."""
        if partition is None:
            return AlwaysTrue()
        self.partition_path(partition)
        condition: BooleanExpression = AlwaysTrue()
        for column in self.spec.partition:
            integer = pa.types.is_integer(self.spec.schema.field(column).type)
            condition = And(condition, EqualTo(column, int(partition[column]) if integer else partition[column]))
        return condition

    def _plan(self, rows: BooleanExpression, ref: str | None) -> list[FileScanTask]:
        snapshot_id = self.snapshot_id(ref)
        if snapshot_id is None:
            return []
        return list(self._table.scan(row_filter=rows, snapshot_id=snapshot_id).plan_files())

    def _read(self, rows: BooleanExpression, tasks: Iterable[FileScanTask], columns: list[str]) -> pa.Table:
        metadata = self._table.metadata
        unknown = sorted(set(columns) - set(self.spec.schema.names))
        if unknown:
            raise ConfigError(f"{self.identifier} has no columns {unknown}; it has {self.spec.schema.names}")
        projected = metadata.schema().select(*columns)
        table = ArrowScan(metadata, self._table.io, projected, rows).to_table(tasks)
        return table.select(columns).cast(pa.schema([self.spec.schema.field(c) for c in columns]))

    def _bounds(self, task: FileScanTask, column: str) -> tuple[Any, Any]:
        """Returns the smallest and largest value of a column in a file, None where the file does not say."""
        found = self._table.metadata.schema().find_field(column)
        assert isinstance(found.field_type, PrimitiveType), f"{column} is nested"
        bounds = []
        for by_id in (task.file.lower_bounds, task.file.upper_bounds):
            raw = (by_id or {}).get(found.field_id)
            bounds.append(None if raw is None else from_bytes(found.field_type, raw))
        return bounds[0], bounds[1]
