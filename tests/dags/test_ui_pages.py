"""What the UI's pages say where there is no report, and how they read what runs of every age have left."""

import datetime as dt
import gzip
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
DAG, CRAWL = "corpus_refresh_demo", "MILL-DEMO-2024-10"


@pytest.fixture(scope="module")
def stored_dag(airflow_db):
    """The demo DAG as the metadata database has it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.serialized_dag import SerializedDagModel

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    (bundle,) = (b for b in manager.get_all_dag_bundles() if b.name == "dags-folder")
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    sync_bag_to_db(bag, bundle.name, bundle.version)
    return SerializedDagModel.get(DAG).dag


@pytest.fixture
def airflow_run(stored_dag):
    """Returns a function that stores a run of the demo DAG with the given states of the run and of its tasks."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from sqlalchemy import select

    made = []

    def make(run_id, state, *, keyed=True, **tasks):
        key = {"partition_key": CRAWL, "partition_date": stored_dag.timetable.resolve_partition_date(CRAWL)}
        with create_session() as session:
            stored_dag.create_dagrun(
                run_id=run_id, logical_date=None, data_interval=None, run_after=dt.datetime.now(dt.UTC),
                run_type=DagRunType.MANUAL, triggered_by=DagRunTriggeredByType.TEST, state=DagRunState(state),
                conf={} if keyed else {"crawl": CRAWL}, session=session, **(key if keyed else {}),
            )  # fmt: skip
            made.append(run_id)
            session.flush()
            for name, task_state in tasks.items():
                wanted = select(TaskInstance).where(
                    TaskInstance.dag_id == DAG, TaskInstance.run_id == run_id, TaskInstance.task_id == name
                )
                session.scalars(wanted).one().state = task_state
        return run_id

    yield make
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.run_id.in_(made))).all():
            session.delete(run)


@pytest.fixture
def plan(home):
    """A function that plans a run of the bundled crawl and returns the plan's URI."""
    from corpusmill.recipe import load_recipe
    from corpusmill.runner import chain

    recipe = load_recipe(REPOSITORY / "dags/recipes/demo.yaml").model_dump(mode="json")

    def make(run_id):
        return chain.plan(recipe, CRAWL, run_id)["plan"]

    return make


def page(run_id):
    from corpusmill_operators.ui.run_page import run_page

    return run_page(DAG, run_id)


def shard(run_id, task="ingest", index=1):
    from corpusmill_operators.ui.shard_page import shard_page

    return shard_page(DAG, run_id, task, index)


def test_a_run_that_is_still_going_says_when_its_report_comes(airflow_run, home):
    found = page(airflow_run("going", "running", plan="success"))
    assert found["report"] is None
    assert found["message"].startswith("This run is still going. Its report is written by the last task")


def test_a_run_that_failed_before_its_plan_names_the_task_to_look_at(airflow_run, home):
    found = page(airflow_run("unplanned", "failed", plan="failed"))
    assert "failed before it had a plan" in found["message"]
    assert "'plan'" in found["message"]


def test_a_run_whose_plan_failed_says_why_where_that_was_stored(airflow_run, home):
    from corpusmill.runner import chain

    chain.report_unplanned(DAG, airflow_run("unplanned2", "failed", plan="failed"), "plan failed: ConfigError: no such")
    assert page("unplanned2")["message"].endswith("no stage ran. plan failed: ConfigError: no such")


def test_a_run_that_ended_without_its_report_says_what_to_clear(airflow_run, home):
    found = page(airflow_run("unreported", "failed", plan="success", report="failed"))
    assert "its last task, 'report', is failed. Clear that task alone" in found["message"]


def test_an_unknown_run_and_another_dag_are_told_apart(stored_dag, home):
    from corpusmill_operators.ui.run_page import run_page

    assert page("no such run")["message"] == f"Airflow has no run 'no such run' of {DAG}."
    assert run_page("ablation_demo", "x")["message"].startswith("This DAG makes no corpus")


def test_a_failed_run_shows_its_report_and_a_newer_run_is_named(airflow_run, plan):
    from corpusmill.runner import chain

    uri = plan(airflow_run("older", "failed", plan="success"))
    chain.report(uri, "failed", "clean[1] failed: PermanentDataError: x")
    found = page("older")
    assert found["notices"] == []
    assert found["report"]["message"].startswith("clean[1] failed")
    assert found["report"]["funnel"] == []
    assert found["docs"] is None
    json.dumps(found)
    plan(airflow_run("newer", "running", plan="success"))
    (notice,) = page("older")["notices"]
    assert notice.startswith(f"A newer run of {CRAWL} took over (epoch 2, newer).")


def test_a_report_of_an_older_version_is_shown_with_what_it_has(airflow_run, plan):
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.plan import load_plan
    from corpusmill.runner.records import read_record, write_record
    from corpusmill.runner.report import report_uri, write_report

    lake = open_lakehouse()
    stored = load_plan(lake, plan(airflow_run("old", "success", plan="success")))
    write_report(lake, stored, "success", "")
    new = ("compared", "mix", "n_shards", "n_files", "started_at", "examples_left_out", "selection", "epochs")
    place = report_uri(lake, stored)
    write_record(lake, place, {k: v for k, v in read_record(lake, place).items() if k not in new})
    found = page("old")
    assert found["report"]["compared"] == []
    assert found["report"]["crawl"] == CRAWL
    assert found["sentences"] == []
    old = {"recipe": "demo", "crawl": CRAWL, "funnel": [], "refiner_quality": {"keep_f1": 0.8}, "compared": []}
    write_record(lake, place, old)
    assert page("old")["sentences"] == []


@pytest.mark.parametrize("keyed", [True, False], ids=["partition key", "parameter"])
def test_a_shard_is_found_while_its_run_is_going(airflow_run, plan, keyed):
    from corpusmill.runner import chain

    uri = plan(airflow_run("going", "running", keyed=keyed, plan="success"))
    before = shard("going")
    assert before["shard"] is None
    assert before["message"] == "There is no report of shard 00001: the task has not run yet."
    assert len(before["inputs"]["files"]) == 2
    chain.run_shard(uri, "ingest", "00001")
    found = shard("going")["shard"]
    assert (found["state"], found["shard"], found["documents_in"]) == ("success", "00001", found["documents_kept"])
    assert found["seconds"] > 0
    assert [f.rsplit("-", 1)[1] for f in found["files"]] == ["00002.warc.gz", "00003.warc.gz"]


def test_a_failed_shard_shows_its_message_and_quarantined_inputs(airflow_run, plan, tmp_path):
    from corpusmill.errors import PermanentDataError
    from corpusmill.recipe import load_recipe
    from corpusmill.runner import chain

    base = tmp_path / "crawl-data" / CRAWL
    base.mkdir(parents=True)
    (tmp_path / "a.warc.gz").write_bytes(b"<html>not found</html>")
    (base / "warc.paths.gz").write_bytes(gzip.compress(b"a.warc.gz\n"))
    airflow_run("broken", "running", plan="success")
    recipe = load_recipe(REPOSITORY / "dags/recipes/demo.yaml").model_dump(mode="json")
    uri = chain.plan(recipe, CRAWL, "broken", str(tmp_path))["plan"]
    with pytest.raises(PermanentDataError):
        chain.run_shard(uri, "ingest", "00000")
    found = shard("broken", index=0)["shard"]
    assert found["state"] == "failed"
    assert "more than max_error_fraction=0.2" in found["message"]
    assert [q["where"] for q in found["quarantine"]] == ["a.warc.gz"]
    assert shard("broken", index=1)["message"] == "The plan of this run has 1 shards; there is no shard 1."


def test_tasks_without_a_shard_say_where_to_look(stored_dag, home):
    assert shard("x", "select", -1)["message"].startswith("This task does not work on a shard.")
    assert shard("x", "ingest", -1)["message"].startswith("This task does not work on a shard.")
    assert "no plan (yet)" in shard("x")["message"]


def test_the_home_page_lists_what_the_user_may_read_only(stored_dag, home):
    from corpusmill_operators.ui.home_page import home_page

    (found,) = home_page([DAG, "ablation_demo"])["recipes"]
    assert found["recipe"] == "demo"
    assert found["published"] == []
    assert [r["crawl"] for r in found["late"]] == ["MILL-DEMO-2024-33"]  # the demo does not catch up
    assert home_page(["ablation_demo"])["recipes"] == []
    assert home_page([])["recipes"] == []


def test_late_are_releases_that_the_schedule_should_have_published():
    from corpusmill_operators.ui.airflow_state import Releases
    from corpusmill_operators.ui.home_page import late_releases

    releases = (("A", "2023-12-01"), ("B", "2024-01-10"), ("C", "2024-02-10"), ("D", "2024-03-08"), ("E", "2024-09-01"))
    today = dt.date(2024, 3, 10)

    def late(published, *, catchup, after=14):
        known = Releases(releases, dt.date(2024, 1, 1), catchup, paused=False)
        return [r["crawl"] for r in late_releases(known, published, today, after)]

    assert late(set(), catchup=True) == ["C", "B"]  # A is before the start, D is young, E is still to come
    assert late({"B"}, catchup=True) == ["C"]
    assert late(set(), catchup=True, after=1) == ["D", "C", "B"]
    assert late(set(), catchup=False) == []  # only D is expected
    assert late(set(), catchup=False, after=1) == ["D"]


@pytest.mark.parametrize(("given", "days"), [("3", 3), ("", 14), ("soon", 14), ("-1", 14)])
def test_the_days_after_which_a_release_is_late_come_from_the_environment(monkeypatch, given, days):
    from corpusmill_operators.ui.home_page import late_after_days

    monkeypatch.setenv("CORPUSMILL_LATE_AFTER_DAYS", given)
    assert late_after_days() == days


def test_an_explanation_is_bounded_json():
    from corpusmill_operators.ui.app import finite
    from corpusmill_operators.ui.explanation import MAX_ITEMS, MAX_TEXT, shown

    row = {
        "text": "x" * 100_000, "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "first": b"\x00\xff", "nan": float("nan"),
        "many": list(range(10_000)), "deep": [{"a": "b" * 9_000}],
    }  # fmt: skip
    found = json.loads(json.dumps(finite(shown(row)), allow_nan=False))
    assert found["text"].endswith("... (100,000 characters)")
    assert len(found["many"]) == MAX_ITEMS
    assert len(found["deep"][0]["a"]) < MAX_TEXT + 40
    assert (found["at"], found["first"], found["nan"]) == ("2024-01-01T00:00:00+00:00", "2 bytes", None)
