"""Decides which scored documents stay, over the whole crawl, and stores the decision as a small manifest."""

import time

import pyarrow as pa

from corpusmill.batches import Column, rows_to_table
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.radix import Histogram
from corpusmill.pruning.selection import resolve, rows_of, single_score_key
from corpusmill.report import StageReport
from corpusmill.runner.inputs import without
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import write_record
from corpusmill.runner.selection_record import StoredSelection, selection_uri
from corpusmill.runner.stage_tables import input_table
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import CUTOFFS, SCORES


def decide_selection(lake: Lakehouse, plan: RunPlan, duplicates: Column | None = None) -> StoredSelection:
    """Returns the selection over the crawl's scored documents, less the given duplicates."""
    config = plan.parsed_recipe().select
    if config is None:
        return StoredSelection(None, None)
    scores = _scores(lake, plan)
    return _decide(config, scores if duplicates is None else without(scores, duplicates))


def _decide(config: SelectionConfig, scores: pa.Table) -> StoredSelection:
    key = single_score_key(str(k) for k in scores["score_key"].unique().to_pylist())
    rows = rows_of(scores, config)
    return StoredSelection(config, resolve(Histogram.of(rows.values, rows.strata), config, lambda: [rows], key))


def run_select(lake: Lakehouse, plan: RunPlan) -> StageReport:
    """Stores the crawl's selection manifest and its row in ``ops.cutoffs``; the same scores give the same manifest."""
    started = time.monotonic()
    config = plan.parsed_recipe().select
    report = StageReport(stage="select", crawl=plan.crawl)
    if config is None:
        report.skipped = True
        return report
    scores = _scores(lake, plan)
    stored = _decide(config, scores)
    assert stored.manifest is not None
    report.documents_in = scores.num_rows
    report.documents_kept = stored.keep(scores, scores).num_rows
    unscored = 0 if config.keep_unscored else stored.manifest.n_unscored
    out = {"select.unscored": unscored, "select.not_selected": scores.num_rows - report.documents_kept - unscored}
    report.removed = {reason: n for reason, n in out.items() if n > 0}
    write_record(lake, selection_uri(lake, plan), {"manifest": stored.manifest.to_json()})
    _commit_cutoffs(lake, plan, config, stored.manifest, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _commit_cutoffs(
    lake: Lakehouse, plan: RunPlan, config: SelectionConfig, manifest: Manifest, report: StageReport
) -> None:
    partition = {"recipe": plan.name, "crawl": plan.crawl}
    row = {
        **partition,
        "score_key": manifest.score_key,
        "column": config.column,
        "fraction": str(config.fraction),
        "which": config.which,
        "mode": config.mode,
        "manifest": manifest.to_json(),
        "n_scored": manifest.n_scored,
        "n_kept": report.documents_kept,
        "n_unscored": manifest.n_unscored,
    }
    commit_rows(lake, "ops.cutoffs", partition, rows_to_table([row], CUTOFFS.schema), plan.token("select"))


def _scores(lake: Lakehouse, plan: RunPlan) -> pa.Table:
    table, partition = input_table(lake, plan, "score")
    return table.scan(partition, columns=SCORES.schema.names)
