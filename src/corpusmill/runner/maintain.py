"""Keeps a lakehouse small: expires snapshots, audit branches and manifests, compacts partitions, deletes orphan files.

It may run beside refreshes and readers. Published tags, the heads of branches and what a run in flight relies on stay
as they are; a partition that a run replaces at the same moment is left for the next time.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.errors import CommitConflict, ConfigError
from corpusmill.lakehouse.catalog import OPS, RAW, Lakehouse
from corpusmill.lakehouse.commit import FilesRefusedError
from corpusmill.lakehouse.maintenance import (
    compact_partition,
    expire_audit_branches,
    expire_manifests,
    expire_snapshots,
    expired_snapshots,
    find_orphans,
    is_scattered,
    old_audit_branches,
    old_manifests,
    remove_orphans,
)

Log = Callable[[str], None]

MINIMUM_DAYS = 1.0
"""Youngest age that may expire: a reader holds its snapshot for as long as it reads, and a stage reads for hours."""


@dataclass(frozen=True)
class UpkeepPolicy:
    """How old something must be before upkeep takes it.

    Attributes:
        days: Age from which replaced snapshots, kept audit branches and unused shard manifests go; at least 1.
        grace_hours: Age from which files that nothing names are deleted; at least 24, and longer than any task runs.
        dry_run: True says what would be done and does nothing.
    """

    days: float = 30.0
    grace_hours: float = 72.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.days >= MINIMUM_DAYS:
            raise ConfigError(
                f"days={self.days!r} is too short: readers hold their snapshot for hours; expected {MINIMUM_DAYS:g} "
                "or more"
            )

    @property
    def grace(self) -> dt.timedelta:
        """The grace of orphans."""
        return dt.timedelta(hours=self.grace_hours)


def maintain(
    lake: Lakehouse, recipe: str, *, days: float, grace_hours: float, log: Log, dry_run: bool = False
) -> dict[str, Any]:
    """Does all upkeep on a recipe's tables and the shared ones.

    Args:
        lake: The lakehouse.
        recipe: Recipe name.
        days: See `UpkeepPolicy`.
        grace_hours: See `UpkeepPolicy`.
        log: Receives one line per table.
        dry_run: See `UpkeepPolicy`.

    Returns:
        The sum of the counts of `maintain_namespace`.

    Raises:
        ConfigError: An age is too short.
    """
    policy = UpkeepPolicy(days, grace_hours, dry_run)
    total: Counter[str] = Counter()
    for namespace in (recipe, RAW, OPS):
        total.update(maintain_namespace(lake, namespace, policy, log)["total"])
    return dict(total)


def maintain_namespace(lake: Lakehouse, namespace: str, policy: UpkeepPolicy, log: Log) -> dict[str, Any]:
    """Does all upkeep on the tables of one namespace.

    Args:
        lake: The lakehouse.
        namespace: A recipe's name, ``raw`` or ``ops``.
        policy: Ages.
        log: Receives one line per table.

    Returns:
        ``namespace``, ``dry_run``, ``tables`` (counts by table) and their sum ``total``: ``branches_dropped``,
        ``partitions_compacted``, ``snapshots_expired``, ``files_deleted``, ``manifests_deleted``, and ``left_busy``
        (changes that a run in flight was in the way of).

    Raises:
        ConfigError: An age is too short.
        NotInitialisedError: There is no such lakehouse.
    """
    names = sorted(name for *_, name in lake.catalog.list_tables(namespace))
    tables = {}
    for name in names:
        identifier = f"{namespace}.{name}"
        done = _would_do(lake, identifier, policy) if policy.dry_run else _do(lake, identifier, policy, log)
        tables[name] = done
        said = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in done.items())
        log(f"{'dry run: ' if policy.dry_run else ''}{identifier}: {said}")
    total = {what: sum(done[what] for done in tables.values()) for what in COUNTS}
    return {"namespace": namespace, "dry_run": policy.dry_run, "total": total, "tables": tables}


COUNTS = (
    "branches_dropped",
    "partitions_compacted",
    "snapshots_expired",
    "files_deleted",
    "manifests_deleted",
    "left_busy",
)
"""What is counted, in the order in which it is done: what names a file goes before the file, so that the next upkeep
takes the files, unless their age shows already that nobody can be reading them."""


def _do(lake: Lakehouse, identifier: str, policy: UpkeepPolicy, log: Log) -> dict[str, int]:
    done = dict.fromkeys(COUNTS, 0)

    def attempt(what: str, step: Callable[[], int]) -> None:
        try:
            done[what] += step()
        except (CommitConflict, FilesRefusedError) as error:
            done["left_busy"] += 1
            log(f"{identifier}: {what.replace('_', ' ')} not this time: {error}")

    limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=policy.days)
    attempt("branches_dropped", lambda: len(expire_audit_branches(lake, identifier, policy.days)))
    for partition in lake.table(identifier).partitions():
        attempt("partitions_compacted", lambda at=partition: _compacted(lake, identifier, at))  # type: ignore[misc]
    attempt("snapshots_expired", lambda: expire_snapshots(lake, identifier, limit))
    attempt("files_deleted", lambda: len(remove_orphans(lake, identifier, policy.grace)))
    attempt("manifests_deleted", lambda: len(expire_manifests(lake, identifier, policy.days)))
    return done


def _would_do(lake: Lakehouse, identifier: str, policy: UpkeepPolicy) -> dict[str, int]:
    """Counts what is there now; what expiry would turn into orphans is not among the files."""
    table = lake.table(identifier)
    metadata = lake.load(identifier).metadata
    limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=policy.days)
    return {
        "branches_dropped": len(old_audit_branches(metadata, policy.days)),
        "partitions_compacted": sum(is_scattered(table, partition) for partition in table.partitions()),
        "snapshots_expired": len(expired_snapshots(metadata, limit)),
        "files_deleted": len(find_orphans(lake, identifier, policy.grace)),
        "manifests_deleted": len(old_manifests(lake, identifier, policy.days)),
        "left_busy": 0,
    }


def _compacted(lake: Lakehouse, identifier: str, partition: Mapping[str, str]) -> int:
    return int(compact_partition(lake, identifier, partition).snapshot_id is not None)
