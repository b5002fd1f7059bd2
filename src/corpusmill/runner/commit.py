"""Commits a map stage: its shards become the partition, in one snapshot."""

import logging
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.errors import ValidationFailedError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import claim_partition, commit_partition
from corpusmill.lakehouse.shards import ShardManifest, find_manifest
from corpusmill.pruning.packing_config import packing_of
from corpusmill.report import StageReport, merge_reports
from corpusmill.runner.map_stage import quarantine_partition
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import find_record, record_uri, write_record
from corpusmill.runner.refinement_alarms import alarm_sentences, stage_alarms
from corpusmill.runner.stage_tables import input_table, stage_table
from corpusmill.validation.checks import documents_checks, pages_checks
from corpusmill.validation.contract import Metric, check_contract
from corpusmill.validation.results import CheckResult, failure_lines
from corpusmill.validation.sequence_checks import packing_checks
from corpusmill.validation.sequence_metrics import sequence_metrics

log = logging.getLogger(__name__)


def commit_stage(lake: Lakehouse, plan: RunPlan, stage: str) -> StageReport:
    """Registers all shards of a stage in one snapshot that replaces the crawl's partition.

    Args:
        lake: The lakehouse.
        plan: The run.
        stage: A map stage other than ``assemble``, which goes to an audit branch.

    Returns:
        The crawl's report; ``skipped`` where the same content was committed before.

    Raises:
        LakehouseError: A shard is missing.
        SupersededError: A newer run took over.
        ValidationFailedError: The pages or documents break their contract; the message says how.
    """
    place = stage_table(plan, stage)
    token, names = plan.token(place.key_name), [s.identity for s in plan.shards]
    if claim_partition(lake, place.identifier, place.partition, token) is not None:
        _check_contract(lake, plan, stage)
        report = stored_stage_report(lake, plan, stage) or StageReport(stage=stage, crawl=plan.crawl)
        report.skipped = True
        return report
    manifests = _manifests(lake, plan, stage, place.identifier)
    report = _merged(plan, stage, manifests)
    _commit_quarantine(lake, plan, stage)
    result = commit_partition(lake, place.identifier, place.partition, manifests, token, expected_shards=names)
    report.skipped = result.already
    store_stage_report(lake, plan, report)
    _warn_of_refinement(plan, report)
    _check_contract(lake, plan, stage)
    return report


def _warn_of_refinement(plan: RunPlan, report: StageReport) -> None:
    alarms = stage_alarms(plan, report.stage)
    for sentence in alarm_sentences(report, alarms) if alarms is not None else []:
        log.warning("%s", sentence)


def stage_report_uri(lake: Lakehouse, plan: RunPlan, stage: str) -> str:
    """Returns where a stage's report of the whole crawl is stored, by its content key."""
    key = plan.keys[stage_table(plan, stage).key_name] if stage != "select" else plan.keys["select"]
    owner = plan.extraction if stage == "ingest" else plan.name
    return record_uri(lake, owner, plan.crawl, "stages", f"{stage}-{key}.json")


def stored_stage_report(lake: Lakehouse, plan: RunPlan, stage: str) -> StageReport | None:
    """Returns a stage's report of the whole crawl, None where the stage has not run."""
    stored = find_record(lake, stage_report_uri(lake, plan, stage))
    return StageReport.from_json(stored) if stored else None


def store_stage_report(lake: Lakehouse, plan: RunPlan, report: StageReport) -> None:
    """Stores a stage's report of the whole crawl; a repeat that did nothing leaves the first one."""
    uri = stage_report_uri(lake, plan, report.stage)
    if not report.skipped or find_record(lake, uri) is None:
        write_record(lake, uri, report.to_json())


def merge_shards(lake: Lakehouse, plan: RunPlan, stage: str) -> StageReport:
    """Returns the sum of the reports that a stage's shards left in their manifests."""
    return _merged(plan, stage, _manifests(lake, plan, stage, stage_table(plan, stage).identifier))


def _merged(plan: RunPlan, stage: str, manifests: Sequence[ShardManifest]) -> StageReport:
    return merge_reports(stage, plan.crawl, [StageReport.from_json(dict(m.report)) for m in manifests])


def _manifests(lake: Lakehouse, plan: RunPlan, stage: str, identifier: str) -> list[ShardManifest]:
    token = plan.token(stage_table(plan, stage).key_name)
    found = (find_manifest(lake, identifier, token, shard.identity) for shard in plan.shards)
    return [m for m in found if m is not None]


def _commit_quarantine(lake: Lakehouse, plan: RunPlan, stage: str) -> None:
    token, names = plan.token(stage_table(plan, stage).key_name), [s.identity for s in plan.shards]
    manifests = _manifests(lake, plan, stage, "ops.quarantine")
    if len(manifests) == len(names):  # with a shard missing, the commit of the stage's own table says so
        partition = quarantine_partition(plan, stage)
        commit_partition(lake, "ops.quarantine", partition, manifests, token, expected_shards=names)


def _check_contract(lake: Lakehouse, plan: RunPlan, stage: str) -> None:
    """Refuses pages or documents that no later stage could use; cheap, on counts and flags alone."""
    if stage == "pack":
        _refuse(plan, stage, check_contract(packing_checks(), _packed(lake, plan)))
    if stage not in ("ingest", "clean"):
        return
    pages, at = input_table(lake, plan, "ingest")
    written = stored_stage_report(lake, plan, "ingest")
    n_pages = pages.count(at)
    metrics: dict[str, int] = {
        "pages_rows": n_pages,
        "manifest_rows": written.documents_kept if written else n_pages,
    }
    checks = pages_checks()
    if stage == "clean":
        metrics |= _document_counts(lake, plan)
        checks = documents_checks()
    _refuse(plan, stage, check_contract(checks, metrics))


def _refuse(plan: RunPlan, stage: str, results: Sequence[CheckResult]) -> None:
    failed = [r for r in results if not r.passed]
    for result in failed:
        log.warning("%s", result.sentence)
    if critical := [r for r in failed if r.severity == "critical"]:
        raise ValidationFailedError(
            f"{stage} of {plan.crawl} breaks its contract:\n" + "\n".join(failure_lines(critical))
        )


def _packed(lake: Lakehouse, plan: RunPlan) -> dict[str, Metric]:
    """Returns the metrics of the crawl's packed sequences; one input file's tokens are read at a time."""
    table, at = input_table(lake, plan, "pack")
    written, scoring = stored_stage_report(lake, plan, "pack"), plan.parsed_recipe().score
    assert scoring is not None, "sequences are packed to be scored"
    groups = table.iter_groups(at, groups=plan.files)
    metrics = sequence_metrics((rows for _, rows in groups), packing_of(scoring).length)
    n_written = written.metrics.get("sequences", 0) if written else table.count(at)
    return metrics | {"packed_sequences": n_written}


def _document_counts(lake: Lakehouse, plan: RunPlan) -> dict[str, int]:
    documents, at = input_table(lake, plan, "clean")
    rows = documents.scan(at, columns=["kept", "drop_reason", "dedup_digest", "n_chars"])
    kept = rows.filter(rows["kept"])
    # a digest and a length stand for the text itself, which is not read here; `map_stage.checked` looked at it
    without_text = pc.or_(pc.is_null(kept["dedup_digest"]), pc.equal(kept["n_chars"], pa.scalar(0, pa.int64())))
    return {
        "documents_rows": rows.num_rows,
        "documents_kept_rows": kept.num_rows,
        "kept_without_text_rows": kept.filter(without_text).num_rows,
        "removed_without_reason_rows": rows["drop_reason"].null_count - kept["drop_reason"].null_count,
    }
