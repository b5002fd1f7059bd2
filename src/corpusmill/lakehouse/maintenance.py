"""Upkeep of tables: expire snapshots, audit branches and shard manifests, compact partitions, remove orphaned files.

None of it changes what a reader sees, nor any content key, and all of it may run beside refreshes. Expiry keeps commits
fast (their time grows with the number of snapshots) and deletes no data; orphan removal deletes the files that nothing
names any more. What names a file goes first and the file later: a run that holds a manifest, or a reader that holds a
snapshot, keeps its files at least until the next upkeep. Each step has a twin that only says what it would do.
"""

import datetime as dt
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import ancestors_of

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import BranchInfo, swap_files
from corpusmill.lakehouse.publish import AUDIT_PREFIX, drop_audit_branch
from corpusmill.lakehouse.shards import FILE_BYTES, ROW_GROUP_ROWS, RunToken, ShardWriter, stored_manifests
from corpusmill.lakehouse.storage import delete_file, file_size, list_files
from corpusmill.lakehouse.table import LakeTable
from corpusmill.lakehouse.transactions import stage_expiry, transact

log = logging.getLogger(__name__)

MINIMUM_GRACE = dt.timedelta(hours=24)
"""Shortest grace for orphans; it must be longer than the longest stage, whose files no snapshot names yet."""
COMPACTOR = "compaction"


@dataclass(frozen=True)
class CompactResult:
    """Files of a partition before and after, and the snapshot; None where there was nothing to do."""

    files_before: int
    files_after: int
    snapshot_id: int | None


def expired_snapshots(metadata: TableMetadata, older_than: dt.datetime) -> list[int]:
    """Returns the snapshots that no reader should hold any more: what `expire_snapshots` removes.

    The age of a snapshot counts from when another took its place on main, not from when it was made: who opened the
    table just before a commit holds a snapshot that may be years old.

    Args:
        metadata: The table's metadata.
        older_than: Time with a time zone.

    Raises:
        ConfigError: The time has no zone.
    """
    if older_than.tzinfo is None:
        raise ConfigError(f"older_than={older_than!r} has no time zone; expected an aware time")
    limit = older_than.timestamp() * 1000
    kept = _kept_snapshots(metadata)
    replaced = {before.snapshot_id: after.timestamp_ms for before, after in pairwise(metadata.snapshot_log)}
    return [
        s.snapshot_id
        for s in metadata.snapshots
        if s.snapshot_id not in kept and max(s.timestamp_ms, replaced.get(s.snapshot_id, 0)) < limit
    ]


def expire_snapshots(lake: Lakehouse, identifier: str, older_than: dt.datetime) -> int:
    """Removes snapshots that were replaced before a time and returns how many.

    Kept whatever their age: main's head, every branch's head and its commits back to main, and every tag.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        older_than: Time with a time zone.
    """

    def change(table: Table, transaction: Transaction) -> int:
        expired = expired_snapshots(table.metadata, older_than)
        if expired:
            stage_expiry(transaction, expired)
        return len(expired)

    return transact(lake, identifier, change)[0]


def old_audit_branches(metadata: TableMetadata, days: float) -> list[str]:
    """Returns the audit branches that were made more than a number of days ago."""
    limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    old = []
    for branch, ref in metadata.refs.items():
        if not branch.startswith(AUDIT_PREFIX):
            continue
        info = BranchInfo.read(metadata.properties, branch)
        if info is not None:
            created = dt.datetime.fromisoformat(info.created)
        else:
            snapshot = metadata.snapshot_by_id(ref.snapshot_id)
            assert snapshot is not None, f"{branch} points to no snapshot"
            created = dt.datetime.fromtimestamp(snapshot.timestamp_ms / 1000, dt.UTC)
        if created < limit:
            old.append(branch)
    return old


def expire_audit_branches(lake: Lakehouse, identifier: str, days: float) -> list[str]:
    """Drops audit branches that were made more than a number of days ago, and returns their names."""
    old = old_audit_branches(lake.load(identifier).metadata, days)
    return [branch for branch in old if drop_audit_branch(lake, identifier, branch)]


def is_scattered(table: LakeTable, partition: Mapping[str, str], file_bytes: int = FILE_BYTES) -> bool:
    """Returns whether a partition of main has more files than its bytes need: whether compaction would change it."""
    files = table.data_files(partition)
    total = sum(file_size(table.iceberg.io, path) or 0 for path in files)
    return len(files) > max(1, math.ceil(total / file_bytes))


def compact_partition(
    lake: Lakehouse, identifier: str, partition: Mapping[str, str], *, file_bytes: int = FILE_BYTES
) -> CompactResult:
    """Rewrites a partition of main into as few files as possible; rows, content key and epoch stay.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        partition: Partition column values.
        file_bytes: Size at which a new file is begun.

    Raises:
        CommitConflict: The partition was replaced meanwhile; the new files are orphans.
    """
    table = lake.table(identifier)
    old = table.data_files(partition)
    if not is_scattered(table, partition, file_bytes):
        return CompactResult(len(old), len(old), None)
    state = table.partition_state(partition)
    token = RunToken(COMPACTOR, COMPACTOR, COMPACTOR, state.epoch if state else 0, state.key if state else "")
    with ShardWriter(table, partition, token, COMPACTOR, file_bytes=file_bytes) as writer:
        for path in old:
            for rows in _read_slices(table, path):
                writer.write(rows)
        new = [f.path for f in writer.close()]
    snapshot_id = swap_files(lake, identifier, partition, old, new)
    return CompactResult(len(old), len(new), snapshot_id)


def find_orphans(lake: Lakehouse, identifier: str, grace: dt.timedelta, *, force: bool = False) -> list[str]:
    """Returns the URIs of the files below a table's folder that no snapshot and no manifest names.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        grace: Files younger than this are spared: a stage in flight has written them and not committed yet.
        force: Allows a grace below `MINIMUM_GRACE`; only where it is certain that nothing runs.

    Raises:
        ConfigError: The grace is too short.
    """
    if grace < MINIMUM_GRACE and not force:
        raise ConfigError(
            f"grace={grace} is shorter than {MINIMUM_GRACE}: files of stages in flight would be deleted; "
            "give a longer one"
        )
    limit = dt.datetime.now(dt.UTC) - grace
    # listed first: a file that is committed while we look is then among the files that the metadata names
    table = lake.table(identifier)
    old = [f.location for f in list_files(lake.io, table.location) if f.modified < limit]
    # Manifests before metadata, for the same reason. Old ones count too: a run that was cleared after a long weekend
    # may be relying on one right now.
    relied_on = {f.path for _, manifest in stored_manifests(lake, identifier) for f in manifest.files}
    named = _named_files(lake.load(identifier))
    return sorted(set(old) - named - relied_on)


def remove_orphans(lake: Lakehouse, identifier: str, grace: dt.timedelta, *, force: bool = False) -> list[str]:
    """Deletes what `find_orphans` finds, and returns the URIs; raises what it raises."""
    orphans = find_orphans(lake, identifier, grace, force=force)
    for location in orphans:
        delete_file(lake.io, location)
    log.info("%s: %d orphaned files older than %s removed", identifier, len(orphans), grace)
    return orphans


def old_manifests(lake: Lakehouse, identifier: str, days: float) -> list[str]:
    """Returns the URIs of a table's shard manifests that no run wrote or relied on for a number of days."""
    limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    return sorted(stored.location for stored, _ in stored_manifests(lake, identifier) if stored.modified < limit)


def expire_manifests(lake: Lakehouse, identifier: str, days: float) -> list[str]:
    """Deletes a table's shard manifests that no run wrote or relied on for a number of days; returns their URIs.

    The files of those that were never committed become orphans, which the next upkeep removes. A run that comes back
    after that long makes its uncommitted shards again.
    """
    old = old_manifests(lake, identifier, days)
    for location in old:
        delete_file(lake.io, location)
    return old


def _kept_snapshots(metadata: TableMetadata) -> set[int]:
    """Returns the heads and tags, each branch's commits, and main from the oldest base of a branch on.

    Main's part is kept because it tells which of a branch's ancestors are main's: with a gap between main's head and
    the base, everything below the base would look like commits of the branch, and it could not be rebased.
    """
    history = [s.snapshot_id for s in ancestors_of(metadata.current_snapshot(), metadata)]
    main = set(history)
    kept = {ref.snapshot_id for ref in metadata.refs.values()}
    for ref in metadata.refs.values():
        if ref.snapshot_ref_type != SnapshotRefType.BRANCH:
            continue
        for snapshot in ancestors_of(metadata.snapshot_by_id(ref.snapshot_id), metadata):
            if snapshot.snapshot_id in main:
                kept.update(history[: history.index(snapshot.snapshot_id) + 1])
                break
            kept.add(snapshot.snapshot_id)
    return kept


def _named_files(table: Table) -> set[str]:
    """Returns every file that a table's metadata names: its own versions, and each snapshot's manifests and data."""
    metadata = table.metadata
    named = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    named |= {s.statistics_path for s in [*metadata.statistics, *metadata.partition_statistics]}
    manifests = {}
    for snapshot in metadata.snapshots:
        named.add(snapshot.manifest_list)
        manifests.update({m.manifest_path: m for m in snapshot.manifests(table.io)})
    for path, manifest in manifests.items():
        named.add(path)
        named |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    return named


def _read_slices(table: LakeTable, path: str) -> Iterator[pa.Table]:
    """Yields a data file's rows in slices of a row group, with the columns the table has now."""
    schema = schema_to_pyarrow(table.iceberg.schema(), include_field_ids=False)
    with table.iceberg.io.new_input(path).open() as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=ROW_GROUP_ROWS):
            rows = pa.Table.from_batches([batch])
            for field in schema:
                if field.name not in rows.column_names:
                    rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
            yield rows.select(schema.names)
