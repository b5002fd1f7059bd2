"""What one shard of a stage did: its counts, its inputs, the worst of its rows, or the error that ended it.

A shard's report is a small record beside the run's plan. It is written when the shard ends, well or not, so that a page
about one task reads one file of a few kilobytes and no table. A killed process leaves none.
"""

import contextlib
import datetime as dt
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.errors import CorpusmillError, Permanent, Transient
from corpusmill.failures import sorted_error
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.shards import ShardManifest, manifest_location
from corpusmill.lakehouse.storage import open_location, read_whole
from corpusmill.report import StageReport
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.runner.records import find_record, record_uri, write_record
from corpusmill.runner.report_bounds import shortened
from corpusmill.runner.stage_tables import stage_table

log = logging.getLogger(__name__)

MAX_INPUTS = 200
"""Input files that a shard's report names."""
MAX_EXAMPLES = 12
"""Rows that a shard's report shows as its worst."""
MAX_ROWS = 10_000
"""Rows that the worst ones are looked for among: the first row group of the shard's first file."""
MAX_MESSAGE = 8_000
MAX_CELL = 1_000
"""Characters of one value of an example."""

_WORST: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "clean": ("n_chars_raw", "descending", ("doc_id", "url", "drop_reason", "n_chars_raw", "kept")),
    "refine_documents": ("margin", "ascending", ("doc_id", "reason", "decision", "margin", "n_chars")),
    "refine_chunks": (
        "n_errors", "descending",
        ("doc_id", "reason", "n_errors", "n_truncated", "n_chars_before", "n_chars_after"),
    ),
    "score": ("nll_per_byte", "descending", ("doc_id", "nll_sum", "n_bytes", "n_scored", "skipped_reason")),
}  # fmt: skip
"""By stage: the column that makes a row bad, in which direction, and what is shown of it."""
WHAT = {
    "clean": "the longest pages that the rules removed",
    "refine_documents": "the documents with the least certain decision",
    "refine_chunks": "the documents with the most errors in their programs, then those that lost most",
    "score": "the documents with the highest loss per byte",
}
"""What the examples of a stage are, in words."""


def shard_report_uri(lake: Lakehouse, plan: RunPlan, stage: str, shard: str) -> str:
    """Returns where the report of a shard of a run lies."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "shards", f"{stage}-{shard}.json")


def find_shard_report(lake: Lakehouse, plan: RunPlan, stage: str, shard: str) -> dict[str, Any] | None:
    """Returns a shard's report, None where the shard has not ended or its process was killed."""
    found = find_record(lake, shard_report_uri(lake, plan, stage, shard))
    return found if isinstance(found, dict) else None


@contextlib.contextmanager
def reported_shard(lake: Lakehouse, plan: RunPlan, stage: str, shard_name: str) -> Iterator[list[StageReport]]:
    """Stores a shard's report when the block ends; the block appends the stage's report, or raises.

    A report that cannot be made or stored is logged and changes nothing about the shard.
    """
    given: list[StageReport] = []
    started = time.monotonic()
    try:
        yield given
    except Exception as error:
        _store(lake, plan, stage, shard_name, {**_failure(error), "seconds": round(time.monotonic() - started, 1)})
        raise
    for report in given:
        _store(lake, plan, stage, shard_name, {"state": "success", **report.to_json()})


def _store(lake: Lakehouse, plan: RunPlan, stage: str, shard_name: str, outcome: dict[str, Any]) -> None:
    try:
        shard = plan.shard(shard_name)
        record = {
            "stage": stage,
            "crawl": plan.crawl,
            "shard": shard.name,
            "run_id": plan.run_id,
            "files": list(shard.files[:MAX_INPUTS]),
            "n_files": len(shard.files),
            "ended_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **outcome,
            "quarantine": _quarantine(lake, plan, stage, shard),
            "worst": _worst(lake, plan, stage, shard),
            "worst_are": WHAT.get(stage, ""),
        }
        write_record(lake, shard_report_uri(lake, plan, stage, shard.name), record)
    except Exception as error:  # noqa: BLE001 - the shard's own outcome matters more than a page about it
        log.warning("no report of shard %s of %s could be stored: %s", shard_name, stage, error)


def _failure(error: BaseException) -> dict[str, Any]:
    meant = sorted_error(error) or error
    name = type(meant).__name__
    text = str(meant) if isinstance(meant, CorpusmillError) else f"{name}: {meant}"
    kinds = {"permanent": Permanent, "transient": Transient}
    retry = next((kind for kind, marker in kinds.items() if isinstance(meant, marker)), "")
    return {"state": "failed", "error": name, "message": shortened(text, MAX_MESSAGE), "retry": retry}


def _quarantine(lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard) -> list[dict[str, str]]:
    """Returns the first inputs of the shard that could not be processed."""
    columns = ["where", "url", "reason", "message"]
    rows = _first_rows(lake, plan, "ops.quarantine", stage, shard, columns)
    return [] if rows is None else [_cells(row) for row in rows.slice(0, MAX_EXAMPLES).to_pylist()]


def _worst(lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard) -> list[dict[str, str]]:
    if stage not in _WORST:
        return []
    by, direction, columns = _WORST[stage]
    rows = _first_rows(lake, plan, stage_table(plan, stage).identifier, stage, shard, list(columns))
    if rows is None or not rows.num_rows:
        return []
    found = [row for row in rows.to_pylist() if not row.pop("kept", False)]
    found.sort(key=lambda row: _badness(row, by), reverse=direction == "descending")
    return [_cells(row) for row in found[:MAX_EXAMPLES]]


def _badness(row: dict[str, Any], by: str) -> tuple[float, ...]:
    if by == "nll_per_byte":
        return (float(row["nll_sum"] or 0.0) / max(1, row["n_bytes"] or 1),)
    if by == "margin":
        return (abs(float(row["margin"])) if row["margin"] is not None else float("inf"),)
    lost = (row.get("n_chars_before") or 0) - (row.get("n_chars_after") or 0)
    return (float(row[by] or 0), float(lost))


def _first_rows(
    lake: Lakehouse, plan: RunPlan, table: str, stage: str, shard: Shard, columns: list[str]
) -> pa.Table | None:
    """Returns the first row group of the first file that the shard wrote to a table, None where it wrote none."""
    token = plan.token(stage_table(plan, stage).key_name)
    data = read_whole(lake.io, manifest_location(lake.settings.warehouse, table, token, shard.identity))
    manifest = None if data is None else ShardManifest.from_json(json.loads(data))
    if manifest is None or not manifest.files:
        return None
    filesystem, path = open_location(lake.io, manifest.files[0].path)
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as parquet:
        return parquet.read_row_group(0, columns=columns).slice(0, MAX_ROWS)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Returns a row's values as short texts, without those that are null."""
    texts = {name: str(value) for name, value in row.items() if value is not None}
    return {name: text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}..." for name, text in texts.items()}
