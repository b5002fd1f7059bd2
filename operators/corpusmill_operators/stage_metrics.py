"""Counts of each stage as metrics of Airflow (StatsD or OpenTelemetry, ``[metrics]`` in its configuration).

``corpusmill.<stage>.documents_in``, ``.documents_kept``, ``.documents_removed`` and ``.documents_quarantined`` are
counters that shards add to, ``corpusmill.<stage>.seconds`` is a timer with one value for each shard; all carry the tag
``recipe``. Where metrics are off, Airflow's recorder that records nothing takes them.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk.observability import stats

PREFIX = "corpusmill"


def send_metrics(report: Mapping[str, Any], recipe: str) -> None:
    """Sends the counts of one stage's report; nothing for a report without documents or of work that was skipped.

    Args:
        report: A `StageReport` as JSON.
        recipe: Name of the recipe.
    """
    if "documents_in" not in report or report.get("skipped"):
        return
    name, tags = f"{PREFIX}.{report['stage']}", {"recipe": recipe}
    counts = {
        "documents_in": report["documents_in"],
        "documents_kept": report["documents_kept"],
        "documents_removed": sum((report.get("removed") or {}).values()),
        "documents_quarantined": sum((report.get("quarantined") or {}).values()),
    }
    for what, count in counts.items():
        stats.incr(f"{name}.{what}", count, tags=tags)
    stats.timing(f"{name}.seconds", timedelta(seconds=report.get("seconds", 0.0)), tags=tags)


def recipe_of(plan: str | None, fallback: str) -> str:
    """Returns the recipe that a plan's URI names (``.../_runs/RECIPE/CRAWL/epoch-N/plan.json``)."""
    parts = (plan or "").split("/_runs/", 1)
    return parts[1].partition("/")[0] if len(parts) == 2 else fallback
