"""Audits the branch: invariants, counts that must agree, and drift against the last published crawl."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from corpusmill.dedup.crawl_order import crawl_order
from corpusmill.errors import ValidationFailedError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.shards import find_manifest
from corpusmill.runner.audit import AuditBranch, branch_name
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import find_record, record_uri, write_record
from corpusmill.runner.stage_tables import stage_table
from corpusmill.schema import CORPUS
from corpusmill.validation.checks import corpus_checks
from corpusmill.validation.contract import with_previous
from corpusmill.validation.metrics import corpus_metrics
from corpusmill.validation.results import ValidationResult, failure_message
from corpusmill.validation.stage import validate


def audit(lake: Lakehouse, plan: RunPlan, branch: AuditBranch | None = None) -> dict[str, Any]:
    """Validates the run's audit branch and stores the outcome.

    Returns:
        ``passed``, ``warnings`` (sentences), ``data_docs`` (path of the site), ``metrics``.

    Raises:
        ValidationFailedError: A critical check failed; the message lists every failed expectation and names the
            branch, which is kept for inspection.
    """
    name = branch.name if branch else branch_name(plan)
    metrics = _metrics(lake, plan, name, reassembled=branch is not None and branch.plan.keys != plan.keys)
    docs = corpusmill_home() / "data_docs" / plan.name / plan.crawl / f"epoch-{plan.epoch:05d}"
    result = validate(
        corpus_checks(plan.parsed_recipe().validation),
        metrics,
        _sample(lake, plan, name),
        docs,
        title=f"{plan.name} {plan.crawl}",
    )
    outcome = _outcome(result, metrics)
    write_record(lake, validation_uri(lake, plan), outcome)
    if not result.passed:
        raise ValidationFailedError(
            f"{failure_message(result)}\nNothing was published; readers still see the corpus as it was. The rejected "
            f"rows are on branch {name!r} of {plan.name}.corpus."
        )
    write_record(lake, metrics_uri(lake, plan.name, plan.crawl), metrics)
    return outcome


def validation_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where a run's validation outcome is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "validation.json")


def metrics_uri(lake: Lakehouse, recipe: str, crawl: str) -> str:
    """Returns where the metrics of a crawl's last passed audit are stored, for the drift checks of later crawls."""
    return record_uri(lake, recipe, crawl, "metrics.json")


def _metrics(lake: Lakehouse, plan: RunPlan, branch: str, *, reassembled: bool) -> dict[str, Any]:
    corpus = lake.table(f"{plan.name}.corpus")
    metrics: dict[str, Any] = dict(corpus_metrics(_batches(lake, plan, branch)))
    metrics["branch_rows"] = corpus.count({"crawl": plan.crawl}, ref=branch)
    place, token = stage_table(plan, "assemble"), plan.token("corpus")
    manifests = [find_manifest(lake, place.identifier, token, s.name) for s in plan.shards]
    rows = sum(sum(f.rows for f in m.files) for m in manifests if m is not None)
    metrics["assembled_rows"] = metrics["branch_rows"] if reassembled else rows
    documents = lake.table(f"{plan.name}.documents").count({"crawl": plan.crawl})
    metrics["n_pages"] = documents
    metrics["kept_share"] = metrics["branch_rows"] / documents if documents else None
    return with_previous(metrics, _previous(lake, plan))


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


def _outcome(result: ValidationResult, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "passed": result.passed,
        "n_checks": len(result.results),
        "failed": [r.sentence for r in result.failed_critical],
        "warnings": [r.sentence for r in result.failed_warnings],
        "data_docs": str(result.data_docs),
        "metrics": metrics,
    }
