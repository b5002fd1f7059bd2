"""Decides which scored documents stay, over the whole crawl, and stores the decision as a small manifest."""

import logging
import time

from corpusmill.batches import Column, rows_to_table
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.selection import merged_counts, resolve, single_score_key, start
from corpusmill.report import StageReport
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import write_record
from corpusmill.runner.score_counts import first_counts
from corpusmill.runner.score_shards import ScoreShards
from corpusmill.runner.selection_record import StoredSelection, selection_uri
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import CUTOFFS

log = logging.getLogger(__name__)


def decide_selection(lake: Lakehouse, plan: RunPlan, duplicates: Column | None = None) -> StoredSelection:
    """Returns the selection over the crawl's scored documents, less the given duplicates."""
    config = plan.parsed_recipe().select
    if config is None:
        return StoredSelection(None, None)
    shards = ScoreShards(lake, plan, config, plan.files, duplicates)
    first = merged_counts(start(config), shards())
    return StoredSelection(config, resolve(config, shards, single_score_key(shards.score_keys), first))


def run_select(lake: Lakehouse, plan: RunPlan) -> StageReport:
    """Stores the crawl's selection manifest and its row in ``ops.cutoffs``; the same scores give the same manifest."""
    started = time.monotonic()
    config = plan.parsed_recipe().select
    if config is None:
        return StageReport(stage="select", crawl=plan.crawl, skipped=True)
    first, keys = first_counts(lake, plan, config)
    shards = ScoreShards(lake, plan, config, plan.files)
    manifest = resolve(config, shards, single_score_key(keys), first)
    report = selection_report(plan.crawl, manifest)
    write_record(lake, selection_uri(lake, plan), {"manifest": manifest.to_json()})
    _commit_cutoffs(lake, plan, config, manifest, report)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def selection_report(crawl: str, manifest: Manifest) -> StageReport:
    """Returns the counts of a selection, and its drift where it applied frozen cut-offs."""
    unscored = manifest.n_unscored + sum(manifest.n_unknown.values())
    report = StageReport(stage="select", crawl=crawl)
    report.documents_in = manifest.n_scored + unscored
    report.documents_kept = manifest.n_kept + (unscored if manifest.keep_unscored else 0)
    out = {
        "select.unscored": 0 if manifest.keep_unscored else unscored,
        "select.not_selected": manifest.n_scored - manifest.n_kept,
    }
    report.removed = {reason: n for reason, n in out.items() if n > 0}
    if manifest.drift is not None:
        report.metrics = {f"drift_{name}": value for name, value in manifest.drift._asdict().items()}
    return report


def _commit_cutoffs(
    lake: Lakehouse, plan: RunPlan, config: SelectionConfig, manifest: Manifest, report: StageReport
) -> None:
    partition = {"recipe": plan.name, "crawl": plan.crawl}
    drift = manifest.drift
    row = {
        **partition,
        "score_key": manifest.score_key,
        "column": config.column,
        "fraction": manifest.fraction,
        "which": manifest.which,
        "mode": config.mode,
        "manifest": manifest.to_json(),
        "n_scored": manifest.n_scored,
        "n_kept": report.documents_kept,
        "n_unscored": manifest.n_unscored,
        "weight": manifest.weight,
        "drift_ks": None if drift is None else drift.ks,
        "drift_psi": None if drift is None else drift.psi,
        "kept_share": None if drift is None else drift.kept_share,
        "warnings": list(manifest.warnings),
    }
    commit_rows(lake, "ops.cutoffs", partition, rows_to_table([row], CUTOFFS.schema), plan.token("select"))
