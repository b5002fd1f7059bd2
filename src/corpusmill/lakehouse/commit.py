"""Commits a partition: exactly one partition is replaced, in one snapshot, once per content key.

The key, epoch and row count of each partition on main are table properties set in the same transaction, so they survive
expiry and compaction, and a retry needs no walk over ancestors. A commit on another branch keeps its key in the
snapshot's summary until `publish` moves it to the properties.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot, ancestors_of

import corpusmill
from corpusmill.errors import CommitConflict, LakehouseError, Permanent, SupersededError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import check_epoch
from corpusmill.lakehouse.shards import RunToken, ShardFile, ShardManifest
from corpusmill.lakehouse.storage import file_size
from corpusmill.lakehouse.table import MAIN, LakeTable, PartitionState, UnknownRefError
from corpusmill.lakehouse.transactions import stage_replacement, transact

FOOTER_THREADS = 8
SUMMARY_PREFIX = "corpusmill."
BRANCH_PROPERTY = "corpusmill.branch."


class MissingShardsError(LakehouseError):
    """Not exactly the expected shards were handed in."""


class MissingFilesError(LakehouseError):
    """A data file that a manifest names is gone or has another size; its shard must run again."""


class FilesRefusedError(LakehouseError, Permanent):
    """A data file does not hold what it should: another partition or another number of rows."""


@dataclass(frozen=True)
class CommitResult:
    """What `commit_partition` did.

    Attributes:
        snapshot_id: The snapshot that committed this content (not the head, which others may have moved since).
        already: True where the content was committed before and nothing was changed.
        rows: Rows of the partition.
        attempts: Attempts that the commit took.
    """

    snapshot_id: int
    already: bool
    rows: int
    attempts: int


@dataclass(frozen=True)
class BranchInfo:
    """What is known of an audit branch, as a table property.

    Attributes:
        crawl: Crawl whose run made it.
        epoch: That run's epoch.
        base: Main's head when it was made.
        created: UTC time, ISO 8601.
        keys: Content key of every partition of main when it was made, by partition path.
    """

    crawl: str
    epoch: int
    base: int
    created: str
    keys: Mapping[str, str]

    @classmethod
    def read(cls, properties: Mapping[str, str], branch: str) -> "BranchInfo | None":
        """Returns the description of a branch, None where it is not one of ours."""
        text = properties.get(f"{BRANCH_PROPERTY}{branch}")
        return cls(**json.loads(text)) if text else None

    def to_properties(self, branch: str) -> dict[str, str]:
        """Returns the table property that describes the branch."""
        return {f"{BRANCH_PROPERTY}{branch}": json.dumps(self.__dict__, sort_keys=True)}


def commit_partition(
    lake: Lakehouse,
    identifier: str,
    partition: Mapping[str, str],
    files_or_manifests: Sequence[ShardManifest] | Sequence[str],
    token: RunToken,
    *,
    branch: str = MAIN,
    expected_shards: Collection[str] | None = None,
    properties: Mapping[str, str] | None = None,
) -> CommitResult:
    """Replaces one partition by the given files, in one snapshot, unless its current content has the token's key.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        partition: Partition column values.
        files_or_manifests: Manifests of the shards, or URIs of Parquet files; none empties the partition.
        token: Who commits, and the content key.
        branch: Branch to commit to; another than main must exist.
        expected_shards: Names of all shards; with manifests, exactly these must be there. None takes what is given.
        properties: More snapshot properties; names without a dot get the prefix ``corpusmill.``.

    Returns:
        The snapshot that holds the content, also where an earlier attempt committed it.

    Raises:
        MissingShardsError: Shards are missing, unknown or given twice.
        MissingFilesError: A data file is gone.
        SupersededError: A newer run of the same recipe and crawl took over.
        CommitConflict: Other commits were first too often.
    """
    given = list(files_or_manifests)
    files: list[DataFile] = []

    def change(table: Table, transaction: Transaction) -> CommitResult:
        lake_table = LakeTable(identifier, table)
        path = lake_table.partition_path(partition)
        _check_fences(lake, lake_table, partition, token, branch)
        if (found := _committed(lake_table, partition, token, branch)) is not None:
            _claim(transaction, lake_table, partition, token, branch)
            return found
        if not files:
            _check_shards(identifier, given, token, expected_shards)
            files.extend(read_footers(lake_table, partition, given))
        rows = sum(f.record_count for f in files)
        old = live_files(lake_table, partition, branch)
        summary = _summary(lake_table, path, token, rows, properties or {})
        snapshot_id = stage_replacement(transaction, old, files, summary, branch)
        if branch == MAIN:
            state = next_state(lake_table.partition_state(partition), token, rows, snapshot_id, None)
            transaction.set_properties(state.to_properties(path))
        return CommitResult(snapshot_id, False, rows, 1)

    result, attempts = transact(lake, identifier, change)
    return replace(result, attempts=attempts)


def claim_partition(
    lake: Lakehouse, identifier: str, partition: Mapping[str, str], token: RunToken
) -> CommitResult | None:
    """Returns the commit of the token's key where the partition holds it, and fences older runs out; else None.

    For a run that finds its result there and does nothing: without the claim, an older run of the same recipe and crawl
    that was paused just before its commit could still replace the content. No snapshot is made.

    Raises:
        SupersededError: A newer run took over.
    """

    def change(table: Table, transaction: Transaction) -> CommitResult | None:
        lake_table = LakeTable(identifier, table)
        _check_fences(lake, lake_table, partition, token, MAIN)
        found = _committed(lake_table, partition, token, MAIN)
        if found is not None:
            _claim(transaction, lake_table, partition, token, MAIN)
        return found

    return transact(lake, identifier, change)[0]


def swap_files(
    lake: Lakehouse, identifier: str, partition: Mapping[str, str], old: Collection[str], new: Sequence[str]
) -> int:
    """Replaces a partition's files on main by others with the same rows, and returns the snapshot; key and epoch stay.

    Raises:
        FilesRefusedError: The new files hold another number of rows.
        CommitConflict: The partition no longer has the old files.
    """
    files: list[DataFile] = []

    def change(table: Table, transaction: Transaction) -> int:
        lake_table = LakeTable(identifier, table)
        live = live_files(lake_table, partition, MAIN)
        if {f.file_path for f in live} != set(old):
            raise CommitConflict(
                f"{identifier} {dict(partition)}: the partition was replaced while it was compacted; compact it again"
            )
        if not files:
            files.extend(read_footers(lake_table, partition, list(new)))
        before, after = sum(f.record_count for f in live), sum(f.record_count for f in files)
        if before != after:
            raise FilesRefusedError(f"{identifier} {dict(partition)}: {after} rows after compaction, {before} before")
        summary = {"corpusmill.stage": "compact", "corpusmill.partition": lake_table.partition_path(partition)}
        return stage_replacement(transaction, live, files, summary)

    return transact(lake, identifier, change)[0]


def live_files(table: LakeTable, partition: Mapping[str, str], branch: str) -> list[DataFile]:
    """Returns the data files that a partition has on a branch."""
    snapshot_id = table.snapshot_id(branch)
    if snapshot_id is None:
        return []
    scan = table.iceberg.scan(row_filter=table.row_filter(partition), snapshot_id=snapshot_id)
    return [task.file for task in scan.plan_files()]


def branch_commits(metadata: TableMetadata, branch: str) -> dict[str, Snapshot]:
    """Returns the newest snapshot of each partition, by partition path, that a branch has and main has not."""
    main = {s.snapshot_id for s in ancestors_of(metadata.current_snapshot(), metadata)}
    newest: dict[str, Snapshot] = {}
    for snapshot in ancestors_of(metadata.snapshot_by_id(metadata.refs[branch].snapshot_id), metadata):
        if snapshot.snapshot_id in main:
            break
        path = summary_value(snapshot, "partition")
        if path is not None:
            newest.setdefault(path, snapshot)
    return newest


def summary_value(snapshot: Snapshot, name: str) -> str | None:
    """Returns one of our properties of a snapshot, None where it has none."""
    values = snapshot.summary.additional_properties if snapshot.summary else {}
    return values.get(f"{SUMMARY_PREFIX}{name}")


def next_state(
    before: PartitionState | None, token: RunToken, rows: int, snapshot_id: int, tag: str | None
) -> PartitionState:
    """Returns a partition's state after a commit: the new content, and the highest epoch of every line of runs."""
    epochs = dict(before.epochs) if before else {}
    if token.epoch >= epochs.get(token.line, (0, ""))[0]:
        epochs[token.line] = (token.epoch, token.run_id)
    run = f"{token.line}/{token.run_id}"
    return PartitionState(token.key, token.epoch, rows, snapshot_id, tag, run, epochs)


def check_fence(state: PartitionState | None, token: RunToken, place: str) -> None:
    """Raises a SupersededError where a newer run of the token's line committed to a partition."""
    epoch, run_id = state.epochs.get(token.line, (0, "")) if state else (0, "")
    if epoch > token.epoch:
        raise SupersededError(
            f"{place}: run {token.run_id!r} (epoch {token.epoch}) comes after run {run_id!r} (epoch {epoch}), "
            "which committed this partition; its result stays"
        )


def read_footers(table: LakeTable, partition: Mapping[str, str], given: Sequence[Any]) -> list[DataFile]:
    """Returns the data files behind manifests or URIs, with statistics from their footers, after checking them.

    Raises:
        MissingFilesError: A file is gone or has another size than its manifest says.
        FilesRefusedError: A file holds another partition, or another number of rows than its manifest says.
    """
    wanted: list[ShardFile] = []
    for item in given:
        wanted += item.files if isinstance(item, ShardManifest) else [ShardFile(str(item), -1, -1)]
    if len({f.path for f in wanted}) != len(wanted):
        raise FilesRefusedError(f"{table.identifier}: a data file is listed twice among {[f.path for f in wanted]}")
    values = [partition[c] for c in table.spec.partition]

    def read(file: ShardFile) -> DataFile:
        size = file_size(table.iceberg.io, file.path)
        if size is None or file.bytes not in (-1, size):
            raise MissingFilesError(
                f"{table.identifier}: data file {file.path!r} has {size} bytes, expected {file.bytes}; "
                "run its shard again"
            )
        found = parquet_file_to_data_file(table.iceberg.io, table.iceberg.metadata, file.path)
        held = [str(found.partition[i]) for i in range(len(values))]
        if held != [str(v) for v in values] or file.rows not in (-1, found.record_count):
            raise FilesRefusedError(
                f"{table.identifier}: data file {file.path!r} holds partition {held} and {found.record_count} rows, "
                f"expected {values} and {file.rows}"
            )
        return found

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(read, wanted))


def _check_fences(
    lake: Lakehouse, table: LakeTable, partition: Mapping[str, str], token: RunToken, branch: str
) -> None:
    place = f"{table.identifier} {dict(partition)}"
    check_fence(table.partition_state(partition), token, place)
    if branch == MAIN:
        check_epoch(lake, token)
        return
    if branch not in table.refs():
        raise UnknownRefError(f"{table.identifier} has no branch {branch!r}; create it with create_audit_branch")
    info = BranchInfo.read(table.iceberg.metadata.properties, branch)
    # Another crawl that this branch retracts documents from may have a run under way: that run sees our publication.
    if info is None or info.crawl == token.crawl:
        check_epoch(lake, token)


def _committed(table: LakeTable, partition: Mapping[str, str], token: RunToken, branch: str) -> CommitResult | None:
    """Returns the earlier commit of the token's key, where it is the partition's current content on the branch."""
    if branch == MAIN:
        state = table.partition_state(partition)
        if state is None or state.key != token.key:
            return None
        return CommitResult(state.snapshot_id, True, state.rows, 1)
    snapshot = branch_commits(table.iceberg.metadata, branch).get(table.partition_path(partition))
    if snapshot is None or summary_value(snapshot, "commit-key") != token.key:
        return None
    return CommitResult(snapshot.snapshot_id, True, int(summary_value(snapshot, "rows") or 0), 1)


def _claim(
    transaction: Transaction, table: LakeTable, partition: Mapping[str, str], token: RunToken, branch: str
) -> None:
    """Raises the epoch of a partition that holds a newer run's content already, so that older runs stay fenced out."""
    state = table.partition_state(partition)
    if branch != MAIN or state is None or state.epochs.get(token.line, (0, ""))[0] >= token.epoch:
        return
    epochs = {**state.epochs, token.line: (token.epoch, token.run_id)}
    claimed = replace(state, epoch=token.epoch, epochs=epochs)
    transaction.set_properties(claimed.to_properties(table.partition_path(partition)))


def _check_shards(
    identifier: str, given: Sequence[Any], token: RunToken, expected_shards: Collection[str] | None
) -> None:
    manifests = [m for m in given if isinstance(m, ShardManifest)]
    if wrong := [m.shard for m in manifests if m.key != token.key or m.table != identifier]:
        raise MissingShardsError(
            f"{identifier}: manifests of shards {wrong} belong to another commit than key={token.key!r}"
        )
    if expected_shards is None:
        return
    names = sorted(m.shard for m in manifests)
    expected = sorted(expected_shards)
    if names != expected or len(manifests) != len(given):
        missing, unknown = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
        twice = sorted({n for n in names if names.count(n) > 1})
        raise MissingShardsError(
            f"{identifier}: {len(names)} manifests for {len(expected)} expected shards; missing {missing}, "
            f"unknown {unknown}, given twice {twice}; nothing was committed. Run the missing shards, then commit again"
        )


def _summary(table: LakeTable, path: str, token: RunToken, rows: int, properties: Mapping[str, str]) -> dict[str, str]:
    versions = dict(token.versions)
    summary = {
        "stage": table.spec.name,
        "config-hash": versions.pop("config", ""),
        "code-version": versions.pop("corpusmill", corpusmill.__version__),
        **{f"version.{name}": value for name, value in versions.items()},
        **{name.removeprefix(SUMMARY_PREFIX): value for name, value in properties.items()},
        "run-id": token.run_id,
        "run-line": token.line,
        "commit-key": token.key,
        "epoch": str(token.epoch),
        "partition": path,
        "rows": str(rows),
    }
    return {f"{SUMMARY_PREFIX}{name}": str(value) for name, value in summary.items()}
