"""Audits the branch: invariants, counts that must agree, and drift against the last published crawl."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from corpusmill.dedup.crawl_order import crawl_order
from corpusmill.errors import ValidationFailedError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.pruning.packing_config import packing_of
from corpusmill.runner.audit import AuditBranch, stored_branch
from corpusmill.runner.commit import stored_stage_report
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.provenance import source_plan
from corpusmill.runner.records import find_record, record_uri, write_record
from corpusmill.runner.refinement_alarms import REFINEMENT_STAGES, alarm_checks, alarm_metrics, stage_alarms
from corpusmill.schema import CORPUS
from corpusmill.validation.checks import corpus_checks
from corpusmill.validation.config import METRIC_KINDS, CheckConfig
from corpusmill.validation.contract import check_contract, with_previous
from corpusmill.validation.metrics import corpus_metrics
from corpusmill.validation.results import ValidationResult, failure_lines, failure_message
from corpusmill.validation.sequence_checks import corpus_sequence_checks
from corpusmill.validation.sequence_metrics import sequence_metrics
from corpusmill.validation.stage import validate

MAY_BE_EMPTY = ("corpus.not_empty", "sample.not_empty", "corpus_sequences.not_empty")
"""Invariants that do not hold for a crawl whose last documents an older crawl took over; it has no sample."""


def audit(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Validates everything on the run's audit branch and stores the outcome.

    The crawl itself gets every check of the recipe. Newer crawls that were assembled again, because this one takes
    documents over from them, get the invariants.

    Returns:
        ``passed``, ``warnings`` (sentences), ``data_docs`` (path of the site), ``metrics``.

    Raises:
        ValidationFailedError: A critical check failed; the message lists every failed expectation and names the
            branch, which is kept for inspection.
    """
    branch = stored_branch(lake, plan)
    alarms, numbers = _refinement(lake, plan)
    metrics = with_previous(_metrics(lake, plan, branch) | numbers, _previous(lake, plan))
    docs = corpusmill_home() / "data_docs" / plan.name / plan.crawl / f"epoch-{plan.epoch:05d}"
    result = validate(
        [*corpus_checks(plan.parsed_recipe().validation), *_sequence_checks(plan), *alarms],
        metrics,
        _sample(lake, plan, branch.name),
        docs,
        title=f"{plan.name} {plan.crawl}",
    )
    broken = _broken_retractions(lake, plan, branch)
    outcome = {**_outcome(result, broken, metrics), "audited": audited_content(branch)}
    write_record(lake, validation_uri(lake, plan), outcome)
    if not outcome["passed"]:
        failure = ValidationFailedError(
            "\n".join(filter(None, [failure_message(result), *broken]))
            + "\nNothing was published; readers still see the corpus as it was. The rejected "
            f"rows are on branch {branch.name!r} of {plan.name}.corpus."
        )
        failure.data_docs = str(result.data_docs)
        raise failure
    return outcome


def _refinement(lake: Lakehouse, plan: RunPlan) -> tuple[list[CheckConfig], dict[str, float]]:
    """Returns the alarms of the refinement stages as checks that only warn, and the numbers that they look at."""
    checks: list[CheckConfig] = []
    numbers: dict[str, float] = {}
    for stage in REFINEMENT_STAGES:
        alarms, report = stage_alarms(plan, stage), stored_stage_report(lake, plan, stage)
        if alarms is not None and report is not None:
            checks += alarm_checks(report, alarms)
            numbers |= alarm_metrics(report)
    return checks, numbers


def audited_content(branch: AuditBranch) -> dict[str, str]:
    """Returns what an audit vouches for: the content key of every crawl on the branch."""
    return {crawl: token.key for crawl, token in branch.tokens.items()}


def _broken_retractions(lake: Lakehouse, plan: RunPlan, branch: AuditBranch) -> list[str]:
    """Returns a sentence for each invariant that a crawl breaks which was assembled again on the branch."""
    checks = [
        c for c in (*corpus_checks(), *_sequence_checks(plan)) if c.severity == "critical" and c.kind in METRIC_KINDS
    ]
    invariants = [c for c in checks if c.name not in MAY_BE_EMPTY]
    sentences = []
    for crawl, token in branch.tokens.items():
        if crawl == plan.crawl:
            continue
        newer = source_plan(lake, plan.name, crawl, token.key)
        failed = [r for r in check_contract(invariants, _metrics(lake, newer, branch)) if not r.passed]
        sentences += [f"{crawl}, assembled again: {line}" for line in failure_lines(failed)]
    return sentences


def validation_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where a run's validation outcome is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "validation.json")


def metrics_uri(lake: Lakehouse, recipe: str, crawl: str) -> str:
    """Returns where the metrics of a crawl's last publication are stored, for the drift checks of later crawls."""
    return record_uri(lake, recipe, crawl, "metrics.json")


def _metrics(lake: Lakehouse, plan: RunPlan, branch: AuditBranch) -> dict[str, Any]:
    """Returns the metrics of one crawl on the branch; ``assembled_rows`` is what its assembly wrote."""
    metrics: dict[str, Any] = dict(corpus_metrics(_batches(lake, plan, branch.name)))
    n_rows = lake.table(f"{plan.name}.corpus").count({"crawl": plan.crawl}, ref=branch.name)
    n_pages = lake.table(f"{plan.name}.documents").count({"crawl": plan.crawl})
    metrics |= {"branch_rows": n_rows, "assembled_rows": branch.rows[plan.crawl], "n_pages": n_pages}
    metrics["kept_share"] = n_rows / n_pages if n_pages else None
    return metrics | _sequence_metrics(lake, plan, branch) if plan.packs_sequences else metrics


def _sequence_checks(plan: RunPlan) -> tuple[CheckConfig, ...]:
    return corpus_sequence_checks() if plan.packs_sequences else ()


def _sequence_metrics(lake: Lakehouse, plan: RunPlan, branch: AuditBranch) -> dict[str, Any]:
    """Returns the metrics of one crawl's sequences on the branch; score quantiles are those of sequences."""
    table, at = lake.table(f"{plan.name}.corpus_sequences"), {"crawl": plan.crawl}
    documents = lake.table(f"{plan.name}.corpus").scan(at, columns=["doc_id"], ref=branch.name)["doc_id"]
    groups = table.iter_groups(at, groups=plan.files, ref=branch.name)
    scoring = plan.parsed_recipe().score
    assert scoring is not None, "sequences are packed to be scored"
    metrics = sequence_metrics((rows for _, rows in groups), packing_of(scoring).length, documents)
    n_rows = {"branch_sequences": table.count(at, ref=branch.name), "assembled_sequences": branch.sequences[plan.crawl]}
    return metrics | n_rows


def _previous(lake: Lakehouse, plan: RunPlan) -> dict[str, Any] | None:
    """Returns the metrics of the published crawl just before this one in crawl order, None where there is none."""
    crawls = [p["crawl"] for p in lake.table(f"{plan.name}.corpus").partitions()]
    older = sorted((c for c in crawls if crawl_order(c) < crawl_order(plan.crawl)), key=crawl_order)
    return find_record(lake, metrics_uri(lake, plan.name, older[-1])) if older else None


def _batches(lake: Lakehouse, plan: RunPlan, branch: str) -> Iterator[pa.Table]:
    corpus = lake.table(f"{plan.name}.corpus")
    groups = corpus.iter_groups({"crawl": plan.crawl}, groups=plan.files, columns=CORPUS.schema.names, ref=branch)
    for _, rows in groups:
        yield rows


def _sample(lake: Lakehouse, plan: RunPlan, branch: str) -> pa.Table:
    """Returns a bounded sample of rows, evenly over the input files and the same on every run."""
    per_file = max(1, plan.parsed_recipe().validation.sample_documents // max(1, len(plan.files)))
    parts = [_spread(rows, per_file) for rows in _batches(lake, plan, branch)]
    return pa.concat_tables(parts) if parts else CORPUS.schema.empty_table()


def _spread(rows: pa.Table, n: int) -> pa.Table:
    """Returns at most ``n`` rows, evenly spaced: rows are sorted by language, the first ones would be of one."""
    if rows.num_rows <= n:
        return rows
    return rows.take([i * rows.num_rows // n for i in range(n)])


def _outcome(result: ValidationResult, broken: list[str], metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "passed": result.passed and not broken,
        "n_checks": len(result.results),
        "failed": [r.sentence for r in result.failed_critical] + broken,
        "warnings": [r.sentence for r in result.failed_warnings],
        "data_docs": str(result.data_docs),
        "metrics": metrics,
    }
