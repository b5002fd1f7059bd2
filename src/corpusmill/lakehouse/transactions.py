"""One attempt loop for every change of a table: fresh metadata, compare-and-set on the whole of it, jittered retries.

pyiceberg's own guard is too weak in four ways that lose or duplicate rows: it keeps one requirement per type, so a
second assertion is dropped; a transaction that sets only properties has none; a commit to one branch can be staged on
metadata that a commit to another branch has outdated; its built-in retry repeats an append whose duplicate check ran
once. `AssertUnchanged` closes the first three, the loop here replaces the fourth. It is checked by the SQL catalogs, on
the metadata that their own compare-and-set then replaces.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import ValidatableTableRequirement
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots
from sqlalchemy.exc import OperationalError

from corpusmill.errors import CommitConflict, LakehouseError
from corpusmill.failures import sorted_error
from corpusmill.lakehouse.catalog import Lakehouse

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_ATTEMPTS = 100
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 2.0


class AssertUnchanged(ValidatableTableRequirement):
    """Nothing was committed to the table, on any branch, since its metadata was read."""

    type: Literal["corpusmill-assert-unchanged"] = "corpusmill-assert-unchanged"
    sequence_number: int
    refs: dict[str, int]
    properties: dict[str, str]

    @classmethod
    def since(cls, metadata: TableMetadata) -> "AssertUnchanged":
        """Returns the requirement that the table still is as this metadata describes it."""
        return cls(
            sequence_number=metadata.last_sequence_number,
            refs={name: ref.snapshot_id for name, ref in metadata.refs.items()},
            properties=dict(metadata.properties),
        )

    def validate(self, base_metadata: TableMetadata | None) -> None:
        """Raises CommitFailedException where the table has changed."""
        if base_metadata is None:
            raise CommitFailedException("Requirement failed: the table is gone")
        now = AssertUnchanged.since(base_metadata)
        for name in ("refs", "sequence_number", "properties"):
            if getattr(now, name) != getattr(self, name):
                raise CommitFailedException(f"Requirement failed: {name} changed since the metadata was read")


def transact(
    lake: Lakehouse, identifier: str, change: Callable[[Table, Transaction], T], *, attempts: int = MAX_ATTEMPTS
) -> tuple[T, int]:
    """Runs a change until it is committed on the metadata that it saw.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        change: Stages updates on the transaction and returns its answer; called again, with fresh metadata, after
            another commit was first. Where it stages nothing, nothing is committed.
        attempts: Attempts before giving up.

    Returns:
        The change's answer, and how many attempts it took.

    Raises:
        CommitConflict: Another commit was first every time.
    """
    reason = ""
    lost: OperationalError | None = None
    for attempt in range(1, attempts + 1):
        table = lake.load(identifier)
        _refuse_foreign_retries(table, identifier)
        transaction = table.transaction()
        # first, so that it is kept whatever else is staged
        transaction._requirements += (AssertUnchanged.since(table.metadata),)
        try:
            answer = change(table, transaction)
            transaction.commit_transaction()
            return answer, attempt
        except FileNotFoundError as error:
            if lake.load(identifier).metadata_location == table.metadata_location:
                raise  # nobody was first: a file of the table is missing
            reason, lost = f"what it read was replaced and removed meanwhile: {error}", None
        except CommitFailedException as error:
            reason, lost = str(error), None
        except OperationalError as error:
            # A lost connection leaves it open whether the commit landed: the next attempt's fresh metadata tells.
            reason, lost = str(error.orig), error
        log.info("%s: attempt %d was not committed (%s)", identifier, attempt, reason)
        time.sleep(random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(attempt, 6))))
    if lost is not None and (meant := sorted_error(lost)) is not None:
        raise meant from lost  # the database, not a rival, refused: full, read-only or gone
    raise CommitConflict(
        f"{identifier}: not committed in {attempts} attempts, the last one because: {reason}; too many commits "
        "at once, try again later"
    )


def _refuse_foreign_retries(table: Table, identifier: str) -> None:
    retries = table.metadata.properties.get("commit.retry.num-retries")
    if retries != "0":
        raise LakehouseError(
            f"{identifier} has commit.retry.num-retries={retries!r}, expected '0': pyiceberg's own retry "
            "duplicates rows; create tables with Lakehouse.create_table"
        )


def stage_replacement(
    transaction: Transaction,
    old: Sequence[DataFile],
    new: Sequence[DataFile],
    summary: Mapping[str, str],
    branch: str = MAIN_BRANCH,
) -> int:
    """Stages ONE overwrite snapshot that drops the old files and adds the new ones, and returns its id.

    Both may be empty. pyiceberg's own overwrites make two snapshots, and the dynamic one deletes nothing where the new
    content is empty.
    """
    producer = transaction.update_snapshot(snapshot_properties=dict(summary), branch=branch).overwrite()
    for file in old:
        producer.delete_data_file(file)
    for file in new:
        producer.append_data_file(file)
    producer.commit()
    return int(producer.snapshot_id)


def stage_empty_snapshot(transaction: Transaction, summary: Mapping[str, str]) -> int:
    """Stages a snapshot on main that changes no row, and returns its id."""
    producer = transaction.update_snapshot(snapshot_properties=dict(summary)).fast_append()
    producer.commit()
    return int(producer.snapshot_id)


def stage_branch(transaction: Transaction, branch: str, snapshot_id: int) -> None:
    """Stages a branch that points to a snapshot, new or moved."""
    ManageSnapshots(transaction).create_branch(snapshot_id, branch).commit()


def stage_branch_removal(transaction: Transaction, branch: str) -> None:
    """Stages the removal of a branch; its snapshots stay until they expire."""
    ManageSnapshots(transaction).remove_branch(branch).commit()


def stage_fast_forward(transaction: Transaction, branch: str, tag: str) -> int:
    """Stages main's move to a branch's head, a tag on it, and the branch's removal, and returns the head.

    The order keeps pyiceberg's own assertion on main: it keeps the first of its type, so with the tag first a
    concurrent publication would be lost. The caller checks that main's head is an ancestor of the branch.
    """
    head = int(transaction.table_metadata.refs[branch].snapshot_id)
    steps = ManageSnapshots(transaction).set_current_snapshot(snapshot_id=head)
    steps.create_tag(head, tag).remove_branch(branch).commit()
    return head


def stage_expiry(transaction: Transaction, snapshot_ids: Sequence[int]) -> None:
    """Stages the removal of snapshots that no branch or tag points to; deletes no file."""
    ExpireSnapshots(transaction).by_ids(list(snapshot_ids)).commit()
