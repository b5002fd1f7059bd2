"""Commits the output of a global step: one table of rows for the whole crawl, as a single shard."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import CommitResult, commit_partition
from corpusmill.lakehouse.shards import RunToken, ShardWriter

WHOLE_CRAWL = "whole"
"""Shard name of a global step's single output."""


def commit_rows(
    lake: Lakehouse,
    identifier: str,
    partition: Mapping[str, str],
    rows: pa.Table,
    token: RunToken,
    report: Mapping[str, Any] | None = None,
) -> CommitResult:
    """Replaces a partition by the given rows, possibly none, in one snapshot.

    Args:
        lake: The lakehouse.
        identifier: Namespace and table.
        partition: Partition column values.
        rows: Rows of the table's columns.
        token: Who commits, and the content key.
        report: What is kept with the shard's manifest.
    """
    with ShardWriter(lake.table(identifier), partition, token, WHOLE_CRAWL) as writer:
        writer.write(rows)
        manifest = writer.finish(report or {})
    return commit_partition(lake, identifier, partition, [manifest], token, expected_shards=[WHOLE_CRAWL])
