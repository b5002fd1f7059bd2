"""The bounded report of a run: funnel, reasons, validation, examples; stored once and shown to people.

It is all that a page or a terminal needs to read about a run (at most 2 MB of JSON, see `report_bounds`), so that old
runs keep their figures when tables have moved on. `report` also writes the run's row in ``ops.runs``, whether it
succeeded or not.
"""

import datetime as dt
import json
import logging
import platform
from typing import Any

from corpusmill import __version__
from corpusmill.batches import rows_to_table
from corpusmill.config import fingerprint
from corpusmill.dedup.config import Survivor
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.shards import RunToken
from corpusmill.prox.refinement_alarms import refinement_shares
from corpusmill.report import StageReport
from corpusmill.runner.commit import stored_stage_report
from corpusmill.runner.corpus_mix import corpus_mix
from corpusmill.runner.demo_quality import demo_quality
from corpusmill.runner.examples import refinement_examples
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.provenance import source_plan
from corpusmill.runner.publish import publication_uri
from corpusmill.runner.records import RecordNotFoundError, find_record, record_uri, write_record
from corpusmill.runner.refinement_alarms import REFINEMENT_STAGES
from corpusmill.runner.report_bounds import bounded
from corpusmill.runner.run_history import earlier_funnels
from corpusmill.runner.selection_summary import epoch_summary, selection_summary
from corpusmill.runner.stage_tables import committed
from corpusmill.runner.validate import validation_uri
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import RUNS

log = logging.getLogger(__name__)

STAGES = (
    "ingest", "clean", "deduplicate", "refine_documents", "refine_chunks", "pack", "score", "select",
    "assemble_sequences", "assemble",
)  # fmt: skip
"""Stages in the order of the funnel."""
OF_SEQUENCES = ("pack", "assemble_sequences")
"""Stages of recipes that score packed sequences; their ``score`` and ``select`` count sequences too."""
OPTIONAL = ("refine_documents", "refine_chunks", "score", "select")
"""Stages that a recipe may leave out."""
EXAMPLES = 60
"""Before / program / after examples that a report holds."""


def report_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where a run's report is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "report.json")


def build_report(lake: Lakehouse, plan: RunPlan, state: str, message: str) -> dict[str, Any]:
    """Returns the report of a run from its stored stage reports, whatever state it ended in."""
    source = _source(lake, plan)
    names = [s for s in STAGES if plan.packs_sequences or s not in OF_SEQUENCES]
    stages = [r for r in (stored_stage_report(lake, source, s) for s in names) if r is not None]
    publication = find_record(lake, publication_uri(lake, plan)) or {}
    funnel = [_step(r, plan) for r in stages if _is_part_of(plan, r.stage)]
    _count_retractions(funnel, publication.get("published"), plan.parsed_recipe().deduplication.survivor)
    validation = find_record(lake, validation_uri(lake, plan))
    _count_tokens(funnel, validation)
    return {
        "recipe": plan.name,
        "crawl": plan.crawl,
        "run_id": plan.run_id,
        "epoch": plan.epoch,
        "state": state,
        "message": message,
        "funnel": funnel,
        "quarantined": sum(sum(r.quarantined.values()) for r in stages),
        "published": publication.get("published", 0),
        **({"published_sequences": publication.get("sequences", 0)} if plan.packs_sequences else {}),
        "snapshot": publication.get("snapshot"),
        "tag": publication.get("tag"),
        "retracted": publication.get("retracted", {}),
        "validation": validation,
        "selection": selection_summary(lake, source),
        "epochs": epoch_summary(lake, plan),
        "compared": earlier_funnels(lake, plan.name, plan.crawl, plan.epoch),
        "n_shards": len(plan.shards),
        "n_files": len(plan.files),
        "started_at": plan.started_at,
        "refiner_quality": None,
        "mix": None,
        "examples": [],
        **_looks(lake, source),
    }


def write_report(lake: Lakehouse, plan: RunPlan, state: str, message: str) -> dict[str, Any]:
    """Stores the report and the run's row in ``ops.runs``; returns the report."""
    report = bounded(build_report(lake, plan, state, message))
    write_record(lake, report_uri(lake, plan), report)
    partition = {"recipe": plan.name, "crawl": plan.crawl, "epoch": str(plan.epoch)}
    row = {
        "recipe": plan.name,
        "crawl": plan.crawl,
        "epoch": plan.epoch,
        "run_id": plan.run_id,
        "state": state,
        "message": report["message"],
        "config": json.dumps(plan.recipe, sort_keys=True),
        "commit_keys": json.dumps(plan.keys, sort_keys=True),
        "report": json.dumps({k: v for k, v in report.items() if k != "examples"}, sort_keys=True),
        "n_published": report["published"],
        "snapshot": report["snapshot"],
        "tag": report["tag"],
        "started_at": dt.datetime.fromisoformat(plan.started_at),
        "ended_at": dt.datetime.now(dt.UTC),
        "versions": json.dumps({"corpusmill": __version__, "python": platform.python_version()}),
    }
    content = fingerprint({k: str(v) for k, v in row.items()})
    # a line of its own without epochs: the row of a superseded run is written as well, and a later state replaces it
    token = RunToken(f"{plan.name}/runs", f"{plan.crawl}/{plan.epoch}", plan.run_id, 0, content)
    commit_rows(lake, "ops.runs", partition, rows_to_table([row], RUNS.schema), token)
    return report


def _looks(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Returns what is read from the stage tables, {} where a newer run has replaced them."""
    try:
        return {
            "refiner_quality": demo_quality(lake, plan),
            "mix": corpus_mix(lake, plan),
            "examples": refinement_examples(lake, plan, EXAMPLES),
        }
    except RecordNotFoundError as error:
        log.info("the report has no examples: %s", error)
        return {}


def _source(lake: Lakehouse, plan: RunPlan) -> RunPlan:
    """Returns the plan whose stages the published content came from: this one's, or an earlier one's with its key."""
    if not committed(lake, plan, "assemble"):
        return plan
    return source_plan(lake, plan.name, plan.crawl, plan.keys["corpus"])


_RETRACTED: dict[Survivor, str] = {
    "oldest_crawl": "retracted.copy_in_older_crawl",
    "first_published": "retracted.copy_in_published_crawl",
}


def _count_retractions(funnel: list[dict[str, Any]], published: int | None, survivor: Survivor) -> None:
    """Makes the last step say what is published, where another crawl took documents over since it was assembled."""
    if funnel and funnel[-1]["stage"] == "assemble" and published is not None:
        lost = funnel[-1]["documents_kept"] - published
        if lost > 0:
            funnel[-1]["removed"] = {_RETRACTED[survivor]: lost}
            funnel[-1]["documents_kept"], funnel[-1]["characters_kept"] = published, 0


def _count_tokens(funnel: list[dict[str, Any]], validation: dict[str, Any] | None) -> None:
    """Adds ``tokens_kept`` where tokens were counted: what was scored, and what the audit found to publish."""
    audited = (validation or {}).get("metrics") or {}
    for step in funnel:
        metrics = step["metrics"]
        if step["stage"] == "assemble" and step["documents_kept"] == audited.get("n_documents"):
            metrics = audited
        tokens = metrics.get("sequence_tokens") or metrics.get("n_tokens")
        if tokens:
            step["tokens_kept"] = int(tokens)


def _is_part_of(plan: RunPlan, stage: str) -> bool:
    """Returns whether the recipe has the stage; one that it leaves out passes everything and is not shown."""
    return stage not in OPTIONAL or plan.recipe[stage] is not None


def _step(report: StageReport, plan: RunPlan) -> dict[str, Any]:
    of_sequences = plan.packs_sequences and report.stage in ("score", "select", "assemble_sequences")
    return {
        "stage": report.stage,
        **({"unit": "sequence"} if of_sequences else {}),
        "documents_in": report.documents_in,
        "documents_kept": report.documents_kept,
        "characters_in": report.characters_in,
        "characters_kept": report.characters_kept,
        "removed": report.removed,
        "quarantined": report.quarantined,
        "metrics": report.metrics,
        "shares": refinement_shares(report) if report.stage in REFINEMENT_STAGES else {},
        "seconds": round(report.seconds, 1),
    }
