"""A backfill of three crawls through a live scheduler: a shard fails, a person repairs the archive and clears it."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.airflow, pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(2700),
]  # fmt: skip

spec = importlib.util.spec_from_file_location("backfill_stages", Path(__file__).with_name("test_backfill.py"))
stages = importlib.util.module_from_spec(spec)
sys.modules["backfill_stages"] = stages
spec.loader.exec_module(stages)
project, commits, published, expected = stages.project, stages.commits, stages.published, stages.expected
OLD, MIDDLE, NEW, DAYS, of_conftest = stages.OLD, stages.MIDDLE, stages.NEW, stages.DAYS, stages.of_conftest

DAG = "corpus_refresh_history"
BACKFILL = [
    "backfill", "create", "--dag-id", DAG, "--from-date", DAYS[OLD], "--to-date", DAYS[NEW], "--max-active-runs", "2",
]  # fmt: skip
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "backfill.md"
LOOKS = 1200
"""Seconds that the runs may take on a loaded machine."""


class Airflow:
    """A running Airflow: its REST API, its command line, and what was said on it."""

    def __init__(self, settings, processes, transcript):
        from corpusmill_operators.local.api import AirflowApi
        from corpusmill_operators.local.demo import READY_SECONDS, _await_dag, _unpause

        self.settings, self.processes, self.transcript = settings, processes, transcript
        self.api = AirflowApi(processes)
        self.api.wait_until_ready(READY_SECONDS)
        _await_dag(self.api, DAG)
        self.unpause = lambda: _unpause(self.api, DAG)

    def run(self, *arguments):
        """Runs an airflow command, notes what it prints, and returns it."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=self.settings.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        with self.transcript.open("a") as file:
            file.write(f"$ airflow {' '.join(arguments)}\n{done.stdout}\n[stderr]\n{done.stderr[-3000:]}\n")
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def backfill(self, *arguments):
        """Creates a backfill of all three crawls, once Airflow knows that the one before it has ended."""

        def all_completed():
            return all(b["completed_at"] for b in self.api.get("/backfills", dag_id=DAG)["backfills"])

        self.api.wait_for(all_completed, LOOKS, "the earlier backfill to be marked complete")
        return self.run(*BACKFILL, *arguments)

    def runs(self):
        return self.api.all(f"/dags/{DAG}/dagRuns", "dag_runs")

    def ended(self):
        """Waits until no run is under way; returns the state of each crawl's newest run."""

        def all_ended():
            found = self.runs()
            return found if found and all(r["state"] in ("success", "failed") for r in found) else None

        newest = {}
        for run in sorted(self.api.wait_for(all_ended, LOOKS, "the runs"), key=lambda r: r["queued_at"] or ""):
            newest[run["partition_key"]] = run
        return newest

    def tasks(self, run):
        from corpusmill_operators.local.api import quoted

        path = f"/dags/{DAG}/dagRuns/{quoted(run['dag_run_id'])}/taskInstances"
        return {(t["task_id"], t["map_index"]): t for t in self.api.all(path, "task_instances")}

    def xcom(self, run, task, key):
        from corpusmill_operators.local.api import quoted

        name, index = task
        path = f"/dags/{DAG}/dagRuns/{quoted(run['dag_run_id'])}/taskInstances/{name}/xcomEntries/{key}"
        return (self.api.find(f"{path}?map_index={index}") or {}).get("value")


@pytest.fixture
def airflow(project, tmp_path, monkeypatch):
    from corpusmill_operators.local.demo import COMPONENTS
    from corpusmill_operators.local.initialise import initialise
    from corpusmill_operators.local.processes import AirflowProcesses
    from corpusmill_operators.local.settings import LocalSettings

    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    settings = LocalSettings(home=tmp_path / "home", project=project[0], port=of_conftest("free_port")())
    initialise(settings, print)
    with AirflowProcesses(settings, COMPONENTS) as processes:
        yield Airflow(settings, processes, tmp_path / "transcript.txt")


def outputs_of_the_page(base):
    """The outputs that the how-to page shows, in their order, white space made one; paths are those of this crawl."""
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return [one_line(block.replace("/data/crawls", str(base))) for block in blocks]


def one_line(text):
    return " ".join(str(text).split())


def worked(tasks):
    """When the first task of a run began and the last one ended."""
    done = [task for task in tasks.values() if task["start_date"] and task["end_date"]]
    return min(task["start_date"] for task in done), max(task["end_date"] for task in done)


def test_a_backfill_with_a_missing_archive_is_repaired_cleared_and_resumed(airflow, project, tmp_path):
    planned, made, failed, cleared, told = outputs_of_the_page(tmp_path / "crawls")
    assert planned in one_line(airflow.backfill("--dry-run"))
    said = one_line(airflow.backfill())
    assert all(line in said for line in re.findall(r"partition_key=\S+", made))
    airflow.unpause()
    runs = airflow.ended()
    assert {crawl: run["state"] for crawl, run in runs.items()} == {OLD: "success", MIDDLE: "failed", NEW: "success"}
    assert len(airflow.runs()) == 3, "switching the DAG on ran no crawl a second time"
    at_work = [worked(airflow.tasks(runs[crawl])) for crawl in (OLD, MIDDLE)]
    assert max(start for start, _ in at_work) < min(end for _, end in at_work), "two runs were under way at a time"

    tasks = airflow.tasks(runs[MIDDLE])
    assert {name for name, task in tasks.items() if task["state"] == "failed"} == {("ingest", 1), ("report", -1)}
    assert tasks["ingest", 0]["state"] == "success"
    assert tasks["ingest", 1]["try_number"] == 1, "a file that is not there is not asked for again"
    said = airflow.xcom(runs[MIDDLE], ("ingest", 1), "error")
    assert f"{MIDDLE}-00001.warc.gz" in said
    assert failed in one_line(said)
    before = commits()
    assert MIDDLE not in published()

    (tmp_path / "kept.warc.gz").rename(project[1])
    assert cleared in one_line(airflow.run("dags", "clear", DAG, "--partition-key", MIDDLE, "--only-failed", "--yes"))
    runs = airflow.ended()
    assert {run["state"] for run in runs.values()} == {"success"}
    tasks = airflow.tasks(runs[MIDDLE])
    assert tasks["plan", -1]["try_number"] == tasks["ingest", 0]["try_number"] == 1, "what was done was left"
    assert tasks["ingest", 1]["try_number"] == 2
    report = airflow.xcom(runs[MIDDLE], ("publish", -1), "return_value")
    report = json.loads(report) if isinstance(report, str) else report
    assert {name: value for name, value in report.items() if name != "snapshot"} == ast.literal_eval(told)
    assert published() == expected(), "the oldest crawl's copy stays, the newer crawl gave its copies back"
    after = commits()
    untouched = [place for place in before if place[0] != "history.corpus"]
    assert {place: after[place] for place in untouched} == {place: before[place] for place in untouched}
    assert after["history.corpus", OLD] == before["history.corpus", OLD]

    airflow.run("dags", "clear", DAG, "--partition-key", NEW, "--yes")  # the whole run, though nothing is wrong
    airflow.backfill()  # makes no run: each crawl has one
    assert {run["state"] for run in airflow.ended().values()} == {"success"}
    assert len(airflow.runs()) == 3
    airflow.backfill("--reprocess-behavior", "completed")
    runs = airflow.ended()
    assert len(airflow.runs()) == 6
    for run in runs.values():
        states = {name: task["state"] for (name, _), task in airflow.tasks(run).items()}
        assert {name for name, state in states.items() if state == "success"} == {"plan", "report"}, run
    assert commits() == after, "nothing was done twice"
    assert published() == expected()
