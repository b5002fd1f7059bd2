"""Holds the refinement stages of a crawl or shard against their alarms; every alarm is a warning, none stops a run."""

from typing import Any

from corpusmill.prox.refinement_alarms import MEANINGS, RefinementAlarms, n_outputs, refinement_shares
from corpusmill.report import StageReport
from corpusmill.runner.plan import RunPlan
from corpusmill.validation.config import CheckConfig
from corpusmill.validation.contract import check_contract

REFINEMENT_STAGES = ("refine_documents", "refine_chunks")
"""Stages that have alarms."""
SOURCES = ("model_calls", "reused_stored", "reused_cache")
"""Metrics that say where outputs came from."""
TO_DO = (
    "look at the stage's rows with these reasons and at their programs (`corpusmill replay` executes them again); set "
    "the bound in the recipe if the source is unusual"
)


def alarm_checks(report: StageReport, alarms: RefinementAlarms) -> list[CheckConfig]:
    """Returns a check of severity ``warning`` for each bounded number that the report has, none where it is too small.

    Subjects are ``<stage>.<number>``, as `alarm_metrics` names them.
    """
    if n_outputs(report) < alarms.min_outputs:
        return []
    checks = []
    for name in refinement_shares(report):
        minimum, maximum = alarms.bounds(name)
        if minimum is not None or maximum is not None:
            checks.append(_check(f"{report.stage}.{name}", name, minimum, maximum))
    return checks


def _check(subject: str, name: str, minimum: float | None, maximum: float | None) -> CheckConfig:
    return CheckConfig(
        name=subject,
        kind="metric_between",
        subject=subject,
        minimum=minimum,
        maximum=maximum,
        severity="warning",
        why=f"a refiner that does not work shows here: {MEANINGS[name]}",
        todo=TO_DO,
    )


def alarm_metrics(report: StageReport) -> dict[str, float]:
    """Returns the stage's numbers as ``<stage>.<number>``, for checks and for the drift checks of later crawls."""
    return {f"{report.stage}.{name}": value for name, value in refinement_shares(report).items()}


def alarm_sentences(report: StageReport, alarms: RefinementAlarms) -> list[str]:
    """Returns a sentence for each bound that a report leaves."""
    checks = alarm_checks(report, alarms)
    return [result.sentence for result in check_contract(checks, alarm_metrics(report)) if not result.passed]


def stage_alarms(plan: RunPlan, stage: str) -> RefinementAlarms | None:
    """Returns the alarms of a stage, None where it has none or the recipe leaves it out."""
    config = getattr(plan.parsed_recipe(), stage) if stage in REFINEMENT_STAGES else None
    return None if config is None else config.alarms


def shard_line(report: StageReport) -> str:
    """Returns the numbers of a shard's report as one line for the log."""
    shares = refinement_shares(report)
    counts = {name: int(value) for name, value in report.metrics.items() if name in SOURCES or "removed." in name}
    shown: dict[str, Any] = {**{name: f"{value:.4g}" for name, value in shares.items()}, **dict(sorted(counts.items()))}
    return f"{report.stage} {report.crawl}/{report.shard}: " + ", ".join(f"{k} {v}" for k, v in shown.items())
