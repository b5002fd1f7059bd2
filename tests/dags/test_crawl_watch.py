"""New releases get into the list, are announced, and get one run each: on a real server, with the real scheduler."""

import functools
import json
import os
import shutil
import threading
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
OLD = {"id": "CC-MAIN-2024-10", "name": "March 2024", "from": "2024-02-20T21:10:55", "to": "2024-03-05T10:26:08"}
OLDER = {"id": "CC-MAIN-2023-50", "name": "December 2023", "from": "2023-11-28T08:13:11", "to": "2023-12-12T01:19:17"}

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120), pytest.mark.filterwarnings("default")]


def entry(crawl, day):
    return {**OLD, "id": crawl, "from": f"{day}T00:00:00", "to": f"{day}T12:00:00"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def source(tmp_path):
    """A server of crawls: a folder, its address, and a function that sets its collinfo.json."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def release(*entries):
        (folder / "collinfo.json").write_text(json.dumps(entries))

    release.url = f"http://127.0.0.1:{server.server_port}"
    release.folder = folder
    release.stop = lambda: (server.shutdown(), server.server_close())
    release(OLDER, OLD)
    yield release
    release.stop()


@pytest.fixture
def few_attempts(monkeypatch):
    """Lets the reader give up on a dead server in milliseconds, and tasks try again in a second."""
    from corpusmill_operators.retries import RETRY_POLICY

    for rule in RETRY_POLICY.rules:
        if rule.retry_delay is not None:
            monkeypatch.setattr(rule, "retry_delay", timedelta(seconds=0.2))
    from corpusmill.ingest import crawl
    from corpusmill.ingest.fetch import FetchPolicy, read_bytes

    policy = FetchPolicy(max_attempts=2, first_delay=0.01)
    monkeypatch.setattr(crawl, "read_bytes", functools.partial(read_bytes, policy=policy))


@pytest.fixture
def project(airflow_db, source, tmp_path, monkeypatch):
    """Copies of the DAG files with one recipe, whose crawls come from the server."""
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    dags = tmp_path / "dags"
    (dags / "recipes").mkdir(parents=True)
    for name in ("crawl_watch.py", "corpus_refresh.py"):
        shutil.copy(REPOSITORY / "dags" / name, dags / name)
    recipe = (REPOSITORY / "dags" / "recipes" / "demo.yaml").read_text()
    recipe = recipe.replace("name: demo", "name: watched").replace("bundled:crawls", source.url)
    recipe = recipe.replace("catchup: false", "catchup: true").replace("start_date: 2024-01-01", START)
    (dags / "recipes" / "watched.yaml").write_text(recipe)
    return dags


START = "start_date: 2024-03-01"


@pytest.fixture
def watch(project, scheduler, load_dags):
    """Returns a function that looks for releases once and returns the state of its task."""
    scheduler.parse()  # events of assets that no stored DAG names are dropped

    def look():
        dag = load_dags(project)["crawl_watch"]
        run = dag.test(logical_date=None)
        (task,) = run.get_task_instances()
        look.run, look.task = run, task
        return str(task.state)

    return look


@pytest.fixture
def listed(source, tmp_path):
    """Returns a function that reads the list."""
    port = source.url.rpartition(":")[2]
    return lambda: json.loads((tmp_path / "home" / f"collinfo-127.0.0.1-{port}.json").read_text())


def announced(run):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)).all()
        return sorted(event.partition_key for event in events)


def test_new_releases_are_listed_and_announced_and_a_day_without_news_is_skipped(source, watch, listed):
    assert watch() == "success"
    assert [e["id"] for e in listed()] == ["CC-MAIN-2023-50", "CC-MAIN-2024-10"]
    assert announced(watch.run) == ["CC-MAIN-2024-10"], "of the history only the newest is news"
    before = listed()

    assert watch() == "skipped"
    assert announced(watch.run) == []

    source(entry("CC-MAIN-2024-33", "2024-08-16"), entry("CC-MAIN-2024-30", "2024-07-25"))
    assert watch() == "success"
    assert announced(watch.run) == ["CC-MAIN-2024-30", "CC-MAIN-2024-33"]
    assert listed()[:2] == before, "releases that the source lists no more stay"
    assert [e["id"] for e in listed()[2:]] == ["CC-MAIN-2024-30", "CC-MAIN-2024-33"]
    assert watch() == "skipped"


def test_a_server_that_is_down_is_asked_again_later(source, watch, few_attempts, capfd):
    source.stop()
    assert watch() == "failed"
    assert watch.task.try_number == 6, "all five retries were used"
    assert "could not be downloaded" in capfd.readouterr().out


@pytest.mark.parametrize("answer", ["<html>busy</html>", '{"error": "no"}', "[]", '[{"name": "x"}]'])
def test_an_answer_that_is_no_list_fails_at_once_and_leaves_the_list(
    source, watch, listed, few_attempts, answer, capfd
):
    assert watch() == "success"
    before = listed()
    (source.folder / "collinfo.json").write_text(answer)
    assert watch() == "failed"
    assert watch.task.try_number == 1
    assert "collinfo.json" in capfd.readouterr().out
    assert listed() == before


def test_a_list_that_someone_broke_is_no_ground_to_lose_it(source, project, watch, load_dags, tmp_path):
    assert watch() == "success"
    (place,) = (tmp_path / "home").glob("collinfo-*.json")
    dag = load_dags(project)["crawl_watch"]
    place.write_text("[{")
    assert dag.test(logical_date=None).state == "failed"
    assert place.read_text() == "[{"


def test_what_an_attempt_listed_and_could_not_announce_is_announced_by_the_next(
    watch, source, few_attempts, monkeypatch
):
    from airflow.sdk.execution_time.context import OutletEventAccessor

    from corpusmill.errors import TransientDataError

    assert watch() == "success"
    source(OLD, entry("CC-MAIN-2024-33", "2024-08-16"))
    add, calls = OutletEventAccessor.add_partitions, []

    def once(self, keys):
        calls.append(keys)
        if len(calls) == 1:
            raise TransientDataError("the worker lost its network")
        add(self, keys)

    monkeypatch.setattr(OutletEventAccessor, "add_partitions", once)
    assert watch() == "success"
    assert calls == [["CC-MAIN-2024-33"]] * 2
    assert announced(watch.run) == ["CC-MAIN-2024-33"]


class Scheduler:
    """The part of Airflow's scheduler that makes runs, on the DAGs of a folder."""

    dag_id = "corpus_refresh_watched"

    def __init__(self, folder):
        self.folder = folder

    def parse(self):
        """Does what the DAG processor does when a release list has changed."""
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
        from airflow.models import DagModel
        from airflow.utils.session import create_session

        DagBundlesManager().sync_bundles_to_db()
        bag = BundleDagBag(dag_folder=str(self.folder), bundle_path=self.folder, bundle_name="dags-folder")
        sync_bag_to_db(bag, "dags-folder", None)
        with create_session() as session:
            session.get(DagModel, self.dag_id).is_paused = False

    def tick(self):
        """Makes the runs that are due, and ends them, until none is due."""
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        for _ in range(20):
            with create_session() as session:
                runner = SchedulerJobRunner(job=Job())
                due = [m for m in DagModel.dags_needing_dagruns(session)[0] if m.dag_id == self.dag_id]
                if not due:
                    break
                runner._create_dag_runs(due, session)
                for run in session.scalars(select(DagRun).where(DagRun.dag_id == self.dag_id)):
                    run.state = "success"
                session.get(DagModel, self.dag_id).exceeds_max_non_backfill = False
        with create_session() as session:
            runs = session.scalars(select(DagRun).where(DagRun.dag_id == self.dag_id).order_by(DagRun.id)).all()
            return [run.partition_key for run in runs]

    def forget(self):
        from airflow.models import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        with create_session() as session:
            for model in (DagRun, SerializedDagModel, DagModel):
                session.execute(delete(model).where(model.dag_id.in_([self.dag_id, "crawl_watch"])))


@pytest.fixture
def scheduler(project, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")  # else a change waits 30 s
    made = Scheduler(project)
    yield made
    made.forget()


def test_each_release_gets_exactly_one_run_also_after_days_of_downtime(watch, source, scheduler):
    assert watch() == "success"
    scheduler.parse()
    assert scheduler.tick() == ["CC-MAIN-2024-10"], "the one since the start date"
    scheduler.parse()
    assert scheduler.tick() == ["CC-MAIN-2024-10"]

    # while nothing ran three more came out, one of them older by its dates than what was run
    late = [entry("CC-MAIN-2024-18", "2024-05-01"), entry("CC-MAIN-2024-22", "2024-05-31")]
    source(entry("CC-MAIN-2024-08", "2024-02-25"), OLD, *late)
    assert watch() == "success"
    scheduler.parse()
    expected = ["CC-MAIN-2024-10", "CC-MAIN-2024-08", "CC-MAIN-2024-18", "CC-MAIN-2024-22"]
    assert scheduler.tick() == expected
    for _ in range(2):
        assert watch() == "skipped"
        scheduler.parse()
        assert scheduler.tick() == expected


def test_the_projects_own_watch_follows_common_crawl(load_dags, monkeypatch, tmp_path):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path))
    (task,) = [t for t in load_dags()["crawl_watch"].tasks if "commoncrawl" in t.task_id]
    assert task.task_id == "watch_data.commoncrawl.org"
    assert task.place == os.fspath(tmp_path / "collinfo.json")
    assert [asset.name for asset in task.outlets] == ["data.commoncrawl.org.releases"]
