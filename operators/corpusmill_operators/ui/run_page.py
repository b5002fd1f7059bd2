"""What the tab of a DAG run shows: the run's stored report, or a sentence that says why there is none."""

import logging
from typing import Any

from corpusmill_operators.ui.airflow_state import run_state, task_state
from corpusmill_operators.ui.data_docs import locate
from corpusmill_operators.ui.recipes import recipe_of

log = logging.getLogger(__name__)

NOT_OURS = (
    "This DAG makes no corpus: reports exist for the runs of corpus_refresh_<recipe> DAGs, which take a crawl to the "
    "published corpus."
)
UNFINISHED = ("queued", "running", "restarting")


def run_page(dag_id: str, run_id: str) -> dict[str, Any]:
    """Returns ``report`` (None where there is none), ``message`` (why), ``notices`` (sentences to see first)."""
    recipe = recipe_of(dag_id)
    if recipe is None:
        return _nothing(NOT_OURS)
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.run_history import earlier_funnels, find_run, run_report

    lake, state = open_lakehouse(), run_state(dag_id, run_id)
    run = find_run(lake, recipe, run_id)
    if run is None:
        return _nothing(_why_none(lake, dag_id, run_id, state.state if state else None))
    report = run_report(lake, run)
    if report is None:
        return _nothing(
            f"The report of this run (crawl {run.crawl}, epoch {run.epoch}) is not in the warehouse any more."
        )
    if "compared" not in report:  # an older version's report
        report["compared"] = earlier_funnels(lake, recipe, run.crawl, run.epoch)
    report["ended_at"] = None if run.ended_at is None else run.ended_at.isoformat(timespec="seconds")
    notices = _notices(lake, run, state.state if state else "")
    docs = ["data-docs", dag_id, run.crawl, str(run.epoch), "index.html"]
    return {
        "report": report,
        "message": "",
        "notices": notices,
        "docs": docs if locate(dag_id, run.crawl, run.epoch, "index.html") else None,
        "sentences": _sentences(report),
    }


def _sentences(report: dict[str, Any]) -> list[str]:
    """Returns what the report says of models and selection, in words."""
    from corpusmill.runner.demo_quality import quality_sentences
    from corpusmill.runner.selection_summary import selection_sentences

    quality = report.get("refiner_quality")
    try:
        return [*(quality_sentences(quality) if quality else []), *selection_sentences(report)]
    except (KeyError, TypeError) as error:  # an older version measured other things; the other figures still stand
        log.info("the report of %s has no %s to tell of models and selection", report.get("run_id"), error)
        return []


def _nothing(message: str) -> dict[str, Any]:
    return {"report": None, "message": message, "notices": []}


def _why_none(lake: Any, dag_id: str, run_id: str, state: str | None) -> str:
    """Returns why a run has no report, and what to do."""
    from corpusmill.runner.unplanned_runs import why_unplanned

    if state is None:
        return f"Airflow has no run {run_id!r} of {dag_id}."
    planned = task_state(dag_id, run_id, "plan")
    if planned is not None and planned.state in ("failed", "upstream_failed"):
        if said := why_unplanned(lake, dag_id, run_id):
            return f"This run failed before it had a plan, so no stage ran. {said}"
        return (
            "This run failed before it had a plan, so no stage ran and there is nothing to report. Open the task "
            "'plan': the first line of its error says what is wrong (crawl, source, model, settings)."
        )
    if state in UNFINISHED:
        return (
            "This run is still going. Its report is written by the last task, 'report', also when a stage fails. The "
            "tab of each mapped task shows what its shard did as soon as it has ended."
        )
    last = task_state(dag_id, run_id, "report")
    how = f"is {last.state or 'not scheduled'}" if last else "does not exist"
    return (
        f"This run ended ({state}) without a report: its last task, 'report', {how}. Clear that task alone to write "
        "the report; nothing else is run again."
    )


def _notices(lake: Any, run: Any, state: str) -> list[str]:
    """Returns what a reader must know before the figures: the run is under way again, or a newer one took over."""
    from corpusmill.lakehouse.epochs import current_epoch

    notices = []
    if state in UNFINISHED:
        notices.append("This run is under way again; the figures are those of its last attempt.")
    newest, holder = current_epoch(lake, run.recipe, run.crawl)
    if newest > run.epoch and holder != run.run_id:
        notices.append(
            f"A newer run of {run.crawl} took over (epoch {newest}, {holder}). What follows is what this run "
            f"(epoch {run.epoch}) found; the published corpus may hold the newer one's result."
        )
    return notices
