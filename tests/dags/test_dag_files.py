import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = sorted((REPOSITORY / "dags" / "recipes").glob("*.yaml"))
HEAVY = [
    "torch",
    "transformers",
    "great_expectations",
    "pandas",
    "pyarrow",
    "numpy",
    "pyiceberg",
    "numba",
    "spacy",
    "duckdb",
]
CHAIN = [
    "plan", "ingest", "commit_pages", "clean", "commit_documents", "deduplicate", "refine_documents",
    "commit_decisions", "refine_chunks", "commit_refinements", "score", "commit_scores", "count_scores", "select",
    "assemble", "commit_audit_branch", "validate", "publish", "report",
]  # fmt: skip
MAPPED = {"ingest", "clean", "refine_documents", "refine_chunks", "score", "count_scores", "assemble"}
MODEL_STAGES = {"refine_documents", "refine_chunks", "score"}

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def test_every_recipe_has_its_dag_and_every_file_parses(load_dags):
    assert RECIPES
    assert {f"corpus_refresh_{path.stem}" for path in RECIPES} <= set(load_dags())


def test_the_demo_dag_is_the_chain_in_order(load_dags):
    dag = load_dags()["corpus_refresh_demo"]
    assert [t.task_id for t in dag.topological_sort()] == CHAIN
    for before, after in pairwise(CHAIN):
        assert after in dag.get_task(before).downstream_task_ids
    assert {t.task_id for t in dag.tasks if t.is_mapped} == MAPPED


def test_model_stages_wait_for_the_gpu_pool_and_labels_show_shard_names(load_dags):
    dag = load_dags()["corpus_refresh_demo"]
    assert {t.task_id for t in dag.tasks if t.pool == "gpu"} == MODEL_STAGES
    assert {dag.get_task(name).map_index_template for name in MAPPED} == {"{{ task.shard }}"}


def test_what_decides_scheduling_is_written_out(load_dags):
    from airflow.sdk.definitions.timetables.simple import NullTimetable
    from airflow.sdk.definitions.timetables.trigger import CronTriggerTimetable

    from corpusmill_operators.timetable import CrawlReleaseTimetable, DailyWatchTimetable

    clocks = {"crawl_watch": DailyWatchTimetable, "maintain_lakehouse": CronTriggerTimetable}
    for dag in load_dags().values():
        # a refresh follows the releases of crawls; what is built from a recipe alone is built when a person asks
        refreshes = dag.dag_id.startswith("corpus_refresh_")
        expected = clocks.get(dag.dag_id, CrawlReleaseTimetable if refreshes else NullTimetable)
        assert isinstance(dag.timetable, expected), dag.dag_id
        assert (dag.start_date is not None) == (refreshes or dag.dag_id in clocks), dag.dag_id
        assert dag.max_active_runs == 1
        assert "corpusmill" in dag.tags
        assert dag.doc_md
        for task in dag.tasks:
            assert task.retries > 0, task.task_id
            assert task.execution_timeout is not None, task.task_id


def test_every_pool_that_a_task_names_is_created_at_initialisation(load_dags):
    from corpusmill_operators.pools import pool_definitions

    pools = {task.pool for dag in load_dags().values() for task in dag.tasks}
    assert pools <= {*pool_definitions(), "default_pool"}


def test_the_dag_survives_serialisation(airflow_db, load_dags):
    from airflow.serialization.serialized_objects import DagSerialization

    dag = load_dags()["corpus_refresh_demo"]
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == sorted(CHAIN)
    assert again.timetable == dag.timetable
    assert again.get_task("plan").recipe == dag.get_task("plan").recipe


def test_parsing_in_a_fresh_interpreter_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag(dag_folder={str(REPOSITORY / 'dags')!r})\n"
        "assert bag.import_errors == {} and bag.dags, bag.import_errors\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_dag_files_are_short_and_hold_wiring_only():
    for path in (REPOSITORY / "dags").glob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 80, path.name
        assert not [line for line in lines if line.startswith(("def ", "class "))], path.name


def test_a_backfill_makes_exactly_one_run_per_release(airflow_db, load_dags):
    import pendulum
    from airflow.models.backfill import ReprocessBehavior, _create_backfill
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    dag = load_dags()["corpus_refresh_demo"]
    sync_to_database()
    releases = list(dag.timetable._releases)
    with create_session() as session:  # a crawl that other tests have run would be left out
        for run in session.scalars(select(DagRun).where(DagRun.dag_id == dag.dag_id)).all():
            session.delete(run)
    _create_backfill(
        dag_id=dag.dag_id,
        from_date=pendulum.parse(releases[0][1]),
        to_date=pendulum.parse(releases[-1][1]),
        max_active_runs=1,
        reverse=False,
        dag_run_conf=None,
        triggering_user_name="test",
        reprocess_behavior=ReprocessBehavior.NONE,
    )
    with create_session() as session:
        runs = session.scalars(
            select(DagRun).where(DagRun.dag_id == dag.dag_id, DagRun.run_type == "backfill").order_by(DagRun.id)
        ).all()
    assert [r.partition_key for r in runs] == [key for key, _ in releases]
    assert [r.run_id.split("__")[:2] for r in runs] == [["backfill", key] for key, _ in releases]


def sync_to_database():
    """Does what the DAG processor does: stores the serialised DAGs."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        sync_bag_to_db(bag, bundle.name, bundle.version)
