"""Write, audit, publish: an audit branch from main's head, commits to it, then one guarded fast-forward with a tag.

Readers of main see the whole publication or nothing of it. A failed audit leaves main as it was and keeps the branch
for inspection. Where main moved since the branch was made, publishing is refused: `rebase_audit_branch` puts the same
commits on the new head, or the caller assembles anew.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from corpusmill.errors import CommitConflict, LakehouseError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import (
    BRANCH_PROPERTY,
    BranchInfo,
    branch_commits,
    check_fence,
    live_files,
    next_state,
    summary_value,
)
from corpusmill.lakehouse.epochs import check_epoch
from corpusmill.lakehouse.shards import RunToken
from corpusmill.lakehouse.table import LakeTable, PartitionState, UnknownRefError
from corpusmill.lakehouse.transactions import (
    stage_branch,
    stage_branch_removal,
    stage_empty_snapshot,
    stage_fast_forward,
    stage_replacement,
    transact,
)

AUDIT_PREFIX = "audit_"


class MainMovedError(CommitConflict):
    """Main moved since the audit branch was made; rebase the branch, audit it again, publish again."""


class BranchRefusedError(LakehouseError, Permanent):
    """A branch does not hold what is to be published, or cannot be rebased; assemble it again."""


@dataclass(frozen=True)
class PublishResult:
    """What `publish` did.

    Attributes:
        snapshot_id: Snapshot of main that holds the publication.
        tag: Tag on it; the earlier one where the content was published before, None where that is unknown.
        already: True where main held this content already and nothing was published.
        rows: Rows by partition path.
    """

    snapshot_id: int
    tag: str | None
    already: bool
    rows: Mapping[str, int]


def create_audit_branch(lake: Lakehouse, identifier: str, crawl: str, epoch: int) -> str:
    """Makes the branch ``audit_<crawl>_<epoch>`` at main's head and returns its name.

    A table without any snapshot gets an empty one first, because a branch that is created by a write has no parent and
    could never be fast-forwarded to. A branch of that name that is still untouched is kept.

    Raises:
        BranchRefusedError: A branch of that name exists and holds commits or stands on an old head.
    """
    branch = f"{AUDIT_PREFIX}{crawl}_{epoch}"

    def change(table: Table, transaction: Transaction) -> str:
        metadata = table.metadata
        head = metadata.current_snapshot_id
        if branch in metadata.refs:
            if metadata.refs[branch].snapshot_id == head:
                return branch
            raise BranchRefusedError(
                f"{identifier} has a branch {branch!r} with commits or on an old head; use drop_audit_branch or "
                "rebase_audit_branch"
            )
        if head is None:
            head = stage_empty_snapshot(transaction, {"corpusmill.stage": "base"})
        stage_branch(transaction, branch, head)
        transaction.set_properties(_info(table, crawl, epoch, head).to_properties(branch))
        return branch

    return transact(lake, identifier, change)[0]


def publish(
    lake: Lakehouse, identifier: str, branch: str, tag: str, tokens_by_partition: Mapping[str, RunToken]
) -> PublishResult:
    """Fast-forwards main to an audited branch, tags it, removes the branch and records the partitions, in one commit.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        branch: The audited branch.
        tag: Tag to set, ``<recipe>/<crawl>/<epoch>``.
        tokens_by_partition: What the branch holds: the token of each partition that was committed to it, by partition
            path (the crawl, for a table partitioned by crawl).

    Returns:
        The publication; where main's partitions hold these keys already, only the branch is removed.

    Raises:
        MainMovedError: Main is not an ancestor of the branch any more.
        SupersededError: A newer run took over.
        BranchRefusedError: The branch holds other commits than the tokens say.
        UnknownRefError: There is no such branch.
    """

    def change(table: Table, transaction: Transaction) -> PublishResult:
        lake_table = LakeTable(identifier, table)
        metadata = table.metadata
        states = {path: PartitionState.from_properties(metadata.properties, path) for path in tokens_by_partition}
        info = BranchInfo.read(metadata.properties, branch)
        for path, token in tokens_by_partition.items():
            check_fence(states[path], token, f"{identifier} {path}")
            if info is None or info.crawl == token.crawl:
                check_epoch(lake, token)
        published = {path: state for path, state in states.items() if state is not None}
        if all(p in published and published[p].key == t.key for p, t in tokens_by_partition.items()):
            return _published_before(lake_table, transaction, branch, published)
        if branch not in metadata.refs:
            raise UnknownRefError(
                f"{identifier} has no branch {branch!r}; its branches and tags: {sorted(metadata.refs)}"
            )
        commits = branch_commits(metadata, branch)
        _check_branch(identifier, branch, commits, tokens_by_partition)
        _check_main(lake_table, branch)
        head = stage_fast_forward(transaction, branch, tag)
        rows = {path: int(summary_value(commits[path], "rows") or 0) for path in tokens_by_partition}
        for path, token in tokens_by_partition.items():
            state = next_state(states[path], token, rows[path], commits[path].snapshot_id, tag)
            transaction.set_properties(state.to_properties(path))
        _forget(table, transaction, branch)
        return PublishResult(head, tag, False, rows)

    return transact(lake, identifier, change)[0]


def rebase_audit_branch(lake: Lakehouse, identifier: str, branch: str) -> str:
    """Puts a branch's commits, with the same files, on main's new head in one commit, and returns the branch's name.

    The caller decides whether the content is still right on the new head (deduplication), and audits it again.

    Raises:
        BranchRefusedError: Main's content of a partition that the branch replaces changed meanwhile.
        UnknownRefError: There is no such branch.
    """

    def change(table: Table, transaction: Transaction) -> str:
        lake_table = LakeTable(identifier, table)
        metadata = table.metadata
        info = BranchInfo.read(metadata.properties, branch)
        if branch not in metadata.refs or info is None:
            raise UnknownRefError(f"{identifier} has no audit branch {branch!r}; it has {sorted(metadata.refs)}")
        commits = branch_commits(metadata, branch)
        now = _info(table, info.crawl, info.epoch, int(metadata.current_snapshot_id or 0))
        if changed := sorted(p for p in commits if now.keys.get(p) != info.keys.get(p)):
            raise BranchRefusedError(
                f"{identifier}: main's partitions {changed} changed since branch {branch!r} was made; assemble it again"
            )
        stage_branch(transaction, branch, now.base)
        for path in sorted(commits):
            partition = lake_table.partition_of(path)
            summary = dict(commits[path].summary.additional_properties) if commits[path].summary else {}
            ours = {name: value for name, value in summary.items() if name.startswith("corpusmill.")}
            old = live_files(lake_table, partition, "main")
            stage_replacement(transaction, old, live_files(lake_table, partition, branch), ours, branch)
        transaction.set_properties(now.to_properties(branch))
        return branch

    return transact(lake, identifier, change)[0]


def drop_audit_branch(lake: Lakehouse, identifier: str, branch: str) -> bool:
    """Removes a branch and returns whether it existed; its files become orphans when its snapshots expire."""

    def change(table: Table, transaction: Transaction) -> bool:
        if branch not in table.metadata.refs:
            return False
        stage_branch_removal(transaction, branch)
        _forget(table, transaction, branch)
        return True

    return transact(lake, identifier, change)[0]


def _info(table: Table, crawl: str, epoch: int, base: int) -> BranchInfo:
    lake_table = LakeTable("", table)
    paths = [lake_table.partition_path(p) for p in lake_table.partitions()]
    states = {path: PartitionState.from_properties(table.metadata.properties, path) for path in paths}
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return BranchInfo(crawl, epoch, base, created, {p: s.key for p, s in states.items() if s is not None})


def _published_before(
    table: LakeTable, transaction: Transaction, branch: str, published: Mapping[str, PartitionState]
) -> PublishResult:
    if branch in table.refs():
        stage_branch_removal(transaction, branch)
        _forget(table.iceberg, transaction, branch)
    newest = max(published.values(), key=lambda s: (s.epoch, s.snapshot_id))
    tagged = table.refs().get(newest.tag or "")
    rows = {path: state.rows for path, state in published.items()}
    return PublishResult(tagged or newest.snapshot_id, newest.tag, True, rows)


def _check_branch(
    identifier: str, branch: str, commits: Mapping[str, Snapshot], tokens: Mapping[str, RunToken]
) -> None:
    held = {path: summary_value(snapshot, "commit-key") for path, snapshot in commits.items()}
    wanted = {path: token.key for path, token in tokens.items()}
    if held != wanted:
        raise BranchRefusedError(f"{identifier}: branch {branch!r} holds commits {held}, expected {wanted}")


def _check_main(table: LakeTable, branch: str) -> None:
    metadata = table.iceberg.metadata
    head = metadata.snapshot_by_id(metadata.refs[branch].snapshot_id)
    main = metadata.current_snapshot_id
    if main not in {s.snapshot_id for s in ancestors_of(head, metadata)}:
        raise MainMovedError(
            f"{table.identifier}: main is at snapshot {main}, which branch {branch!r} does not stand on; rebase the "
            "branch, audit it again and publish again"
        )


def _forget(table: Table, transaction: Transaction, branch: str) -> None:
    name = f"{BRANCH_PROPERTY}{branch}"
    if name in table.metadata.properties:
        transaction.remove_properties(name)
