"""The demo: both bundled crawls through the demo recipe, by an Airflow that is started and stopped here."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from corpusmill.recipe import load_recipe
from corpusmill_operators.local.api import AirflowApi, quoted
from corpusmill_operators.local.initialise import initialise
from corpusmill_operators.local.processes import AirflowProcessError, AirflowProcesses, only_one, run_airflow
from corpusmill_operators.local.progress import RunProgress
from corpusmill_operators.local.settings import LocalSettings
from corpusmill_operators.releases import Release, releases_of

RECIPE = "demo"
READY_SECONDS = 240.0
"""Time for the processes to get ready; 15 s on an idle machine with two cores."""
COMPONENTS = ["api-server", "scheduler", "dag-processor"]
"""What a backfill needs; nothing is deferred, so no triggerer."""


def run_demo(settings: LocalSettings, write: Callable[[str], None]) -> int:
    """Backfills every bundled crawl and prints the report; returns the exit code, 0 if all of them are published."""
    started = time.monotonic()
    dag_id = f"corpus_refresh_{RECIPE}"
    releases = demo_releases(settings.project)
    with only_one(settings):
        initialise(settings, write)
        write("starting Airflow: API server, scheduler with LocalExecutor, DAG processor")
        with AirflowProcesses(settings, COMPONENTS) as processes:
            api = AirflowApi(processes)
            api.wait_until_ready(READY_SECONDS)
            _await_dag(api, dag_id)
            runs = create_backfill(settings, api, dag_id, releases)
            if len(runs) != len(releases):
                raise AirflowProcessError(
                    f"the backfill made {len(runs)} runs for {len(releases)} releases {releases}; expected one for each"
                )
            write(f"backfill of {', '.join(key for key, _ in releases)}: {len(runs)} runs")
            _unpause(api, dag_id)
            progress = RunProgress(api, dag_id, list(runs), settings.airflow_home / "logs", write)
            states = progress.follow(processes.check)
            failures = progress.failures()
            published = {run: progress.published(run) for run in runs}
        write(f"Airflow is stopped; {time.monotonic() - started:.0f} s in all")
    for failure in failures:
        write(f"\nFAILED {failure.crawl} {failure.task}: {failure.message}\n  log: {failure.log}")
    good = [crawl for run, crawl in runs.items() if states[run] == "success" and published[run] > 0]
    if not good:
        return 1
    from corpusmill.runner.show import print_demo_report

    return 0 if print_demo_report(good) and good == [crawl for crawl, _ in releases] else 1


def demo_releases(project: Path) -> tuple[Release, ...]:
    """Returns the bundled crawls and their release days, oldest first."""
    recipes = project / "dags" / "recipes"
    return releases_of(load_recipe(recipes / f"{RECIPE}.yaml").source, recipes)


def create_backfill(
    settings: LocalSettings, api: AirflowApi, dag_id: str, releases: Sequence[Release]
) -> dict[str, str]:
    """Creates one run per release by ``airflow backfill create`` and returns the run ids, oldest release first."""
    _end_earlier_runs(api, dag_id)
    before = {run["dag_run_id"] for run in _runs(api, dag_id)}
    run_airflow(
        settings, "backfill", "create", "--dag-id", dag_id, "--from-date", releases[0][1], "--to-date",
        releases[-1][1], "--max-active-runs", "1", "--reprocess-behavior", "completed",
    )  # fmt: skip
    made = [run for run in _runs(api, dag_id) if run["dag_run_id"] not in before]
    return {run["dag_run_id"]: run["partition_key"] for run in sorted(made, key=lambda run: run["partition_date"])}


def _await_dag(api: AirflowApi, dag_id: str) -> None:
    """Waits until the DAG processor has stored the DAG, or says why it cannot."""

    def stored() -> bool:
        errors = api.get("/importErrors")["import_errors"]
        if errors:
            text = "\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in errors)
            raise AirflowProcessError(f"a DAG file cannot be loaded: {text}")
        return api.find(f"/dags/{dag_id}") is not None

    api.wait_for(stored, READY_SECONDS, f"DAG {dag_id}")


def _end_earlier_runs(api: AirflowApi, dag_id: str) -> None:
    """Gives up what a killed demo left unfinished: Airflow allows one running backfill per DAG."""
    for backfill in api.get("/backfills", dag_id=dag_id)["backfills"]:
        if backfill["completed_at"] is None:
            api.put(f"/backfills/{backfill['id']}/cancel")
    for run in _runs(api, dag_id):
        if run["state"] in ("running", "queued"):
            api.patch(f"/dags/{dag_id}/dagRuns/{quoted(run['dag_run_id'])}", {"state": "failed"})


def _unpause(api: AirflowApi, dag_id: str) -> None:
    """Switches the DAG on once Airflow knows that the backfill made its newest release.

    When the DAG was stored there was no run yet, so its next scheduled run is the newest release: switched on now, it
    would be run twice. Reading the DAG file again corrects that.
    """
    dag = api.get(f"/dags/{dag_id}")
    if dag["next_dagrun_run_after"] is not None:
        api.put(f"/parseDagFile/{quoted(dag['file_token'])}")
        api.wait_for(
            lambda: api.get(f"/dags/{dag_id}")["next_dagrun_run_after"] is None, READY_SECONDS, "the DAG's next run"
        )
    api.patch(f"/dags/{dag_id}", {"is_paused": False})


def _runs(api: AirflowApi, dag_id: str) -> list[dict[str, str]]:
    return api.all(f"/dags/{dag_id}/dagRuns", "dag_runs")
