"""Decides which scored documents stay, over the whole crawl, and stores the decision as a small manifest."""

import time

import pyarrow as pa

from corpusmill.batches import Column, rows_to_table
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.shards import ShardWriter
from corpusmill.pruning.radix import Histogram
from corpusmill.pruning.selection import resolve, rows_of, single_score_key
from corpusmill.report import StageReport
from corpusmill.runner.deduplicate import WHOLE_CRAWL
from corpusmill.runner.inputs import without
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import write_record
from corpusmill.runner.selection_record import StoredSelection, selection_uri
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import CUTOFFS, SCORES


def decide_selection(lake: Lakehouse, plan: RunPlan, duplicates: Column | None = None) -> StoredSelection:
    """Returns the selection over the crawl's scored documents, less the given duplicates."""
    config = plan.parsed_recipe().select
    if config is None:
        return StoredSelection(None, None)
    scores = _scores(lake, plan)
    if duplicates is not None:
        scores = without(scores, duplicates)
    key = single_score_key(str(k) for k in scores["score_key"].unique().to_pylist())
    rows = rows_of(scores, config)
    return StoredSelection(config, resolve(Histogram.of(rows.values, rows.strata), config, lambda: [rows], key))


def run_select(lake: Lakehouse, plan: RunPlan) -> StageReport:
    """Stores the crawl's selection manifest and its row in ``ops.cutoffs``; the same scores give the same manifest."""
    started = time.monotonic()
    stored = decide_selection(lake, plan)
    report = StageReport(stage="select", crawl=plan.crawl)
    if stored.config is None or stored.manifest is None:
        report.skipped = True
        return report
    scores = _scores(lake, plan)
    report.documents_in = scores.num_rows
    report.documents_kept = stored.keep(scores, scores).num_rows
    unscored = 0 if stored.config.keep_unscored else stored.manifest.n_unscored
    out = {"select.unscored": unscored, "select.not_selected": scores.num_rows - report.documents_kept - unscored}
    report.removed = {reason: n for reason, n in out.items() if n > 0}
    manifest = stored.manifest.to_json()
    write_record(lake, selection_uri(lake, plan), {"manifest": manifest})
    _commit_cutoffs(lake, plan, stored, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _commit_cutoffs(lake: Lakehouse, plan: RunPlan, stored: StoredSelection, report: StageReport) -> None:
    assert stored.config is not None
    assert stored.manifest is not None
    partition, token, config = {"recipe": plan.name, "crawl": plan.crawl}, plan.token("select"), stored.config
    row = {
        **partition,
        "score_key": stored.manifest.score_key,
        "column": config.column,
        "fraction": str(config.fraction),
        "which": config.which,
        "mode": config.mode,
        "manifest": stored.manifest.to_json(),
        "n_scored": stored.manifest.n_scored,
        "n_kept": report.documents_kept,
        "n_unscored": stored.manifest.n_unscored,
    }
    with ShardWriter(lake.table("ops.cutoffs"), partition, token, WHOLE_CRAWL) as writer:
        writer.write(rows_to_table([row], CUTOFFS.schema))
        manifest = writer.finish({})
    commit_partition(lake, "ops.cutoffs", partition, [manifest], token, expected_shards=[WHOLE_CRAWL], properties={})


def _scores(lake: Lakehouse, plan: RunPlan) -> pa.Table:
    table, partition = input_table(lake, plan, "score")
    return table.scan(partition, columns=SCORES.schema.names)
