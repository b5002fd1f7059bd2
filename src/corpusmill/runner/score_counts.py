"""The first pass of a selection, shard by shard: small counts beside the plan, which `select` adds up.

A shard's counts lie at a place fixed by the content key of the selection and by the shard's files, so a retry, or a run
on another cut of the crawl, finds nothing wrong: it finds the same counts or makes its own. They name the commit of the
scores that they were made from; scores that were computed anew are counted anew.
"""

from collections.abc import Sequence
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.selection import check_columns, merged_counts, start
from corpusmill.report import StageReport
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.runner.records import find_record, record_uri, write_record
from corpusmill.runner.score_shards import SELECTABLE, ScoreShards
from corpusmill.runner.stage_tables import input_table


def counts_uri(lake: Lakehouse, plan: RunPlan, shard: Shard) -> str:
    """Returns where a shard's counts are stored."""
    return record_uri(lake, plan.name, plan.crawl, "selections", plan.keys["select"], f"{shard.identity}.json")


def count_shard(lake: Lakehouse, plan: RunPlan, shard_name: str) -> StageReport:
    """Counts the scores of one shard and stores the counts; does nothing where they are stored already."""
    config, shard = plan.parsed_recipe().select, plan.shard(shard_name)
    report = StageReport(stage="count_scores", crawl=plan.crawl, shard=shard.name)
    if config is None or _stored(lake, plan, shard) is not None:
        report.skipped = True
        return report
    record = _count(lake, plan, config, shard)
    report.documents_in = report.documents_kept = record["n_rows"]
    return report


def first_counts(lake: Lakehouse, plan: RunPlan, config: SelectionConfig) -> tuple[Any, Sequence[str]]:
    """Returns the merged counts of all shards and the score keys they hold; what is not stored yet is counted now.

    Raises:
        ConfigError: The selection names a column that scores do not have.
        PermanentDataError: A score is not usable.
    """
    step = start(config)
    keys: set[str] = set()
    counts = step.empty()
    for shard in plan.shards:
        record = _stored(lake, plan, shard) or _count(lake, plan, config, shard)
        keys.update(record["score_keys"])
        counts = counts.merge(type(counts).from_json(record["counts"]))
    return counts, sorted(keys)


def _stored(lake: Lakehouse, plan: RunPlan, shard: Shard) -> dict[str, Any] | None:
    record: dict[str, Any] | None = find_record(lake, counts_uri(lake, plan, shard))
    return record if record is not None and record["scores_commit"] == _scores_commit(lake, plan) else None


def _scores_commit(lake: Lakehouse, plan: RunPlan) -> str:
    table, partition = input_table(lake, plan, "score")
    state = table.partition_state(partition)
    return "" if state is None else str(state.snapshot_id)


def _count(lake: Lakehouse, plan: RunPlan, config: SelectionConfig, shard: Shard) -> dict[str, Any]:
    check_columns(config, SELECTABLE)
    rows = ScoreShards(lake, plan, config, shard.files)
    counts = merged_counts(start(config), rows())
    record = {
        "counts": counts.to_json(),
        "score_keys": sorted(rows.score_keys),
        "n_rows": rows.n_rows,
        "scores_commit": _scores_commit(lake, plan),
    }
    write_record(lake, counts_uri(lake, plan, shard), record)
    return record
