"""Keeps a lakehouse small: expires snapshots and audit branches, compacts partitions, deletes orphan files."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from corpusmill.errors import CommitConflict
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import FilesRefusedError
from corpusmill.lakehouse.maintenance import (
    compact_partition,
    expire_audit_branches,
    expire_snapshots,
    remove_orphans,
)
from corpusmill.runner.plan import RAW
from corpusmill.schema import OPS_TABLES, PAGES, RECIPE_TABLES


def maintain(
    lake: Lakehouse, recipe: str, *, days: float, grace_hours: float, log: Callable[[str], None]
) -> dict[str, Any]:
    """Does all upkeep on a recipe's tables and the shared ones; readers and running stages notice nothing.

    Tags, branch heads and the current snapshot stay readable whatever their age.

    Args:
        lake: The lakehouse.
        recipe: Recipe name.
        days: Age from which snapshots and kept audit branches go.
        grace_hours: Age from which files that nothing names are deleted, at least 24: longer than any stage runs.
        log: Receives one line per table.

    Returns:
        Counts: ``snapshots_expired``, ``branches_dropped``, ``partitions_compacted``, ``files_deleted``.

    Raises:
        ConfigError: ``grace_hours`` is too short.
    """
    older_than = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    names = (
        [f"{recipe}.{t.name}" for t in RECIPE_TABLES] + [f"{RAW}.{PAGES.name}"] + [f"ops.{t.name}" for t in OPS_TABLES]
    )
    total = {"snapshots_expired": 0, "branches_dropped": 0, "partitions_compacted": 0, "files_deleted": 0}
    for name in names:
        table = lake.table(name)
        done = {
            "branches_dropped": len(expire_audit_branches(lake, name, days)),
            "partitions_compacted": sum(_compacted(lake, name, partition, log) for partition in table.partitions()),
            "snapshots_expired": expire_snapshots(lake, name, older_than),
            "files_deleted": len(remove_orphans(lake, name, dt.timedelta(hours=grace_hours))),
        }
        log(f"{name}: " + ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in done.items()))
        for what, n in done.items():
            total[what] += n
    return total


def _compacted(lake: Lakehouse, name: str, partition: Mapping[str, str], log: Callable[[str], None]) -> bool:
    """Compacts a partition; one that a run is replacing at this moment is left for the next time."""
    try:
        return compact_partition(lake, name, partition).snapshot_id is not None
    except (CommitConflict, FilesRefusedError) as error:
        log(f"{name} {dict(partition)}: not compacted this time: {error}")
        return False
