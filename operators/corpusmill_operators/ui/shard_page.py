"""What the tab of a mapped task shows: its shard's report, or a sentence that says why there is none."""

from typing import Any

from corpusmill_operators.ui.airflow_state import run_state, task_state
from corpusmill_operators.ui.recipes import recipe_of
from corpusmill_operators.ui.run_page import NOT_OURS

LOOK_BACK = 50
"""Earlier epochs of a crawl among which a run's own plan is looked for."""
NOT_A_SHARD = (
    'This task does not work on a shard. The figures of the whole run are in the run\'s tab "Corpus quality"; mapped '
    "tasks (ingest, clean, refine_documents, refine_chunks, score, assemble) have a tab for each shard."
)


def shard_page(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    """Returns ``shard`` (its report, None where there is none) and ``message`` (why, or what to know)."""
    recipe = recipe_of(dag_id)
    if recipe is None:
        return _nothing(NOT_OURS)
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.shard_report import find_shard_report
    from corpusmill.runner.stage_tables import MAP_STAGES

    if task_id not in MAP_STAGES or map_index < 0:
        return _nothing(NOT_A_SHARD)
    lake = open_lakehouse()
    plan = _plan_of(lake, recipe, dag_id, run_id)
    if plan is None:
        return _nothing("This run has no plan (yet), so it has no shards. See the task 'plan'.")
    if map_index >= len(plan.shards):
        return _nothing(f"The plan of this run has {len(plan.shards)} shards; there is no shard {map_index}.")
    shard = plan.shards[map_index]
    report = find_shard_report(lake, plan, task_id, shard.name)
    state = task_state(dag_id, run_id, task_id, map_index)
    if report is None:
        known = {"files": list(shard.files[:LOOK_BACK]), "n_files": len(shard.files), "shard": shard.name}
        return {"shard": None, "inputs": known, "message": _why_none(shard.name, state.state if state else "")}
    message = ""
    if state is not None and state.state in ("running", "queued", "up_for_retry") and report["state"] == "failed":
        message = f"The task is {state.state.replace('_', ' ')}; this is how its last attempt ended."
    return {"shard": report, "inputs": None, "message": message}


def _nothing(message: str) -> dict[str, Any]:
    return {"shard": None, "inputs": None, "message": message}


def _why_none(shard: str, state: str) -> str:
    reasons = {
        "success": (
            "it found its crawl published already with the same content and did nothing, or it ran in a version of "
            "corpusmill that stored no reports of shards"
        ),
        "failed": "its process was killed, or it failed before it read its shard; the task's log has the last lines",
        "up_for_retry": "its process was killed, or it failed before it read its shard; it will be tried again",
        "skipped": "the task was skipped: the same inputs and settings are published already",
        "upstream_failed": "an earlier task failed, so this shard was not started",
        "running": "the task is still running; the report is written when the shard ends",
    }
    return f"There is no report of shard {shard}: {reasons.get(state, 'the task has not run yet')}."


def _plan_of(lake: Any, recipe: str, dag_id: str, run_id: str) -> Any:
    """Returns a run's newest plan: by its row in ``ops.runs``, else by the epochs of its crawl, newest first."""
    from corpusmill.lakehouse.epochs import current_epoch
    from corpusmill.runner.plan import RunPlan, plan_uri
    from corpusmill.runner.records import find_record
    from corpusmill.runner.run_history import find_run

    run, state = find_run(lake, recipe, run_id), run_state(dag_id, run_id)
    crawl = run.crawl if run else state.crawl if state else ""
    if not crawl:
        return None
    newest, _ = current_epoch(lake, recipe, crawl)
    for epoch in range(newest, max(0, newest - LOOK_BACK), -1):
        stored = find_record(lake, plan_uri(lake, recipe, crawl, epoch))
        if stored is not None and stored.get("run_id") == run_id:
            return RunPlan.load(stored)
    if run is None:
        return None
    stored = find_record(lake, plan_uri(lake, recipe, crawl, run.epoch))
    return None if stored is None else RunPlan.load(stored)
