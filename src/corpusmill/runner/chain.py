"""The stages of a run as plain functions of JSON values: what operators, the worker and the command line call.

Every function opens the lakehouse that the environment names (`LakehouseSettings.from_environment`), so that a task
needs nothing but the plan's URI. All of them may be repeated: a result that is committed already is found and left.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import claim_partition
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.recipe import parse_recipe
from corpusmill.report import StageReport
from corpusmill.runner import commit as commits
from corpusmill.runner import deduplicate as deduplication
from corpusmill.runner import map_stage, score_counts
from corpusmill.runner import publish as publication
from corpusmill.runner import report as reporting
from corpusmill.runner import select as selection
from corpusmill.runner import validate as validation
from corpusmill.runner.audit import already_published
from corpusmill.runner.device import device_slot
from corpusmill.runner.frozen_selections import pin_cutoffs
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import RunPlan, load_plan, plan_run
from corpusmill.runner.records import find_record
from corpusmill.runner.shard_report import reported_shard
from corpusmill.runner.stage_tables import MODEL_STAGES, published_stages, stage_table
from corpusmill.runner.unplanned_runs import record_unplanned

log = logging.getLogger(__name__)


def initialise(recipes: Sequence[str]) -> None:
    """Creates the catalog, the shared tables and each recipe's tables, once; workers never do."""
    corpusmill_home().mkdir(parents=True, exist_ok=True)
    open_lakehouse().init(list(recipes))


def plan(recipe: dict[str, Any], crawl: str, run_id: str, source: str | None = None) -> dict[str, Any]:
    """Plans a run; returns the plan's URI, the epoch, the shard names and whether all of it is published already."""
    lake = open_lakehouse()
    made = plan_run(lake, pin_cutoffs(lake, parse_recipe(recipe)), crawl, run_id, source)
    published = already_published(lake, made)
    if published:
        for stage in published_stages(made):
            place = stage_table(made, stage)
            claim_partition(lake, place.identifier, place.partition, made.token(place.key_name))
    return {
        "plan": made.uri(lake),
        "crawl": crawl,
        "epoch": made.epoch,
        "shards": [s.name for s in made.shards],
        "already_published": published,
    }


def run_shard(plan: str, stage: str, shard: str, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Runs a map stage on one shard; returns its report."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return {"stage": stage, "crawl": loaded.crawl, "shard": shard, "skipped": True}
    with reported_shard(lake, loaded, stage, shard) as reports:
        reports.append(_run_shard(lake, loaded, stage, shard, progress or log.info))
    return reports[0].to_json()


def _run_shard(
    lake: Lakehouse, plan: RunPlan, stage: str, shard: str, log_progress: Callable[[str], None]
) -> StageReport:
    if stage in MODEL_STAGES:
        with device_slot(log_progress):
            return map_stage.run_shard(lake, plan, stage, shard, log_progress)
    if stage == "assemble" and plan.packs_sequences:
        map_stage.run_shard(lake, plan, "assemble_sequences", shard, log_progress)
    return map_stage.run_shard(lake, plan, stage, shard, log_progress)


def stage_endpoint(plan: str, stage: str) -> str | None:
    """Returns the endpoint of the server that a refinement stage asks, None where it runs its model itself."""
    config = getattr(_open(plan)[1].parsed_recipe(), stage, None)
    return getattr(config, "endpoint", None)


def commit(plan: str, stage: str) -> dict[str, Any]:
    """Commits a map stage's shards; ``assemble`` goes to the audit branch."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return _already(loaded, stage)
    if stage == "assemble":
        report = _assembled_report(lake, loaded)
        return {**report, **publication.commit_audit_branch(lake, loaded)}
    return commits.commit_stage(lake, loaded, stage).to_json()


def index_bands(plan: str) -> dict[str, Any]:
    """Makes the indexes that near deduplication joins; returns the names of the join's ``parts``."""
    from corpusmill.runner import band_join  # numba, where it is needed

    lake, loaded = _open(plan)
    if already_published(lake, loaded):  # one part, which finds nothing to do: without any Airflow skips what follows
        return {**_already(loaded, "index_bands"), "parts": [band_join.whole_join(loaded)]}
    return {"crawl": loaded.crawl, "parts": band_join.index_bands(lake, loaded)}


def join_bands(plan: str, part: str) -> dict[str, Any]:
    """Finds one part's candidate pairs for `deduplicate`, which joins itself what no task has joined."""
    from corpusmill.runner import band_join

    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return {**_already(loaded, "join_bands"), "part": part}
    return band_join.join_bands(lake, loaded, part)


def deduplicate(plan: str) -> dict[str, Any]:
    """Finds and commits the crawl's duplicates."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return _already(loaded, "deduplicate")
    report = deduplication.deduplicate(lake, loaded)
    commits.store_stage_report(lake, loaded, report)
    if "minhash" in loaded.keys:
        from corpusmill.runner.pair_files import PairFiles

        PairFiles(lake, loaded).forget()
    return report.to_json()


def count_scores(plan: str, shard: str) -> dict[str, Any]:
    """Counts one shard's scores for `select`, which counts itself what no task has counted."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return {**_already(loaded, "count_scores"), "shard": shard}
    return score_counts.count_shard(lake, loaded, shard).to_json()


def select(plan: str) -> dict[str, Any]:
    """Decides which scored documents stay and stores the manifest."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return _already(loaded, "select")
    report = selection.run_select(lake, loaded)
    commits.store_stage_report(lake, loaded, report)
    return report.to_json()


def validate(plan: str) -> dict[str, Any]:
    """Audits the branch.

    Raises:
        ValidationFailedError: A critical check failed; nothing was published.
    """
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        return {"passed": True, "warnings": [], "data_docs": None, "skipped": True}
    outcome = validation.audit(lake, loaded)
    return {k: v for k, v in outcome.items() if k != "metrics"}


def validation_outcome(plan: str) -> dict[str, Any]:
    """Returns what the run's validation found: ``passed`` and ``warnings``, which are sentences."""
    lake, loaded = _open(plan)
    found = find_record(lake, validation.validation_uri(lake, loaded)) or {}
    return {"passed": found.get("passed", True), "warnings": list(found.get("warnings", []))}


def publish(plan: str) -> dict[str, Any]:
    """Publishes the audited branch; a crawl that is published already stays as it is."""
    lake, loaded = _open(plan)
    if already_published(lake, loaded):
        corpus = lake.table(f"{loaded.name}.corpus")
        n = corpus.count({"crawl": loaded.crawl})
        state = corpus.partition_state({"crawl": loaded.crawl})
        tag = state.tag if state else None
        log.info("%s is published already with the same content: nothing to do", loaded.crawl)
        outcome = {"published": n, "snapshot": str(corpus.snapshot_id()), "tag": tag, "skipped": True}
        if loaded.packs_sequences:
            outcome["sequences"] = lake.table(f"{loaded.name}.corpus_sequences").count({"crawl": loaded.crawl})
        publication.store_publication(lake, loaded, outcome)
        return outcome
    return publication.publish(lake, loaded)


def report(plan: str, state: str, message: str = "") -> dict[str, Any]:
    """Stores the run's report and its row in ``ops.runs``; returns the report without its examples."""
    lake, loaded = _open(plan)
    made = reporting.write_report(lake, loaded, state, message)
    return {k: v for k, v in made.items() if k != "examples"}


def report_unplanned(dag_id: str, run_id: str, message: str) -> None:
    """Stores why a run failed before it had a plan, for whoever looks at the run."""
    record_unplanned(open_lakehouse(), dag_id, run_id, message)


def _open(uri: str) -> tuple[Lakehouse, RunPlan]:
    lake = open_lakehouse()
    return lake, load_plan(lake, uri)


def _already(plan: RunPlan, stage: str) -> dict[str, Any]:
    return {"stage": stage, "crawl": plan.crawl, "skipped": True}


def _assembled_report(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Stores what the assembly wrote, for each of its tables; returns the report on the documents."""
    reports = {stage: commits.merge_shards(lake, plan, stage) for stage in published_stages(plan)}
    for report in reports.values():
        commits.store_stage_report(lake, plan, report)
    return reports["assemble"].to_json()
