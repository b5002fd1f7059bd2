"""What a user gets wrong before anything runs: each is told where that user looks, and nothing is lost."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("failing_runs", Path(__file__).parent / "failing_runs.py")
failing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(failing)
DAG_ID, CRAWL = "corpus_refresh_demo", "MILL-DEMO-2024-10"

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def stored_dags(airflow_db):
    """The DAGs of the repository as the DAG processor stores them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    bundle = manager.get_bundle("dags-folder")
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    sync_bag_to_db(bag, bundle.name, None)


@pytest.fixture
def trigger(stored_dags):
    """Triggers a run as REST and ``airflow dags trigger`` do; what was triggered is removed at the end."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType

    made = []

    def trigger(crawl):
        run = trigger_dag(DAG_ID, triggered_by=DagRunTriggeredByType.REST_API, partition_key=crawl)
        made.append(run.id)
        return run

    yield trigger
    with create_session() as session:
        for key in made:
            session.delete(session.get(DagRun, key))


def test_a_run_of_an_unknown_crawl_is_refused_when_it_is_triggered(trigger):
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match=r"unknown crawl 'CC-MAIN-2099-01'.*MILL-DEMO-2024-33"):
        trigger("CC-MAIN-2099-01")


def start(run):
    """Does with a queued run what the scheduler does when it starts it: listeners hear of it in the same session."""
    from airflow.models import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        stored = session.get(DagRun, run.id)
        stored.dag = SerializedDagModel.get_dag(DAG_ID, session=session)
        stored.state = "running"
        stored.notify_dagrun_state_changed(msg="started")


def clear(run):
    """Queues a run again, as clearing its tasks does."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.get(DagRun, run.id).state = "queued"


def note_on(run):
    from airflow.models import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        stored = session.get(DagRun, run.id)
        return str(stored.state), stored.note


@pytest.fixture
def without_gpu_pool(airflow_db):
    """Airflow without the pool of the model stages."""
    from airflow.models import Pool

    Pool.delete_pool("gpu")
    yield
    make_pools()


def make_pools():
    from airflow.models import Pool

    from corpusmill_operators.pools import pool_definitions

    for name, pool in pool_definitions().items():
        Pool.create_or_update_pool(name, pool["slots"], pool["description"], pool["include_deferred"])


COMMAND = 'airflow pools set gpu 1 "Model stages: refinement and scoring, one slot for each device"'


def test_the_scheduler_notes_on_a_run_that_its_pool_is_missing_until_it_is_there(without_gpu_pool, trigger):
    run = trigger(CRAWL)
    start(run)
    state, note = note_on(run)
    assert state == "running"
    assert note.startswith("Tasks of this run wait for pools that do not exist: ['gpu'].")
    assert note.endswith(COMMAND)
    make_pools()
    clear(run)
    start(run)
    assert note_on(run) == ("running", None)


@pytest.mark.slow
def test_plan_refuses_a_run_whose_pool_is_missing_with_the_command_that_makes_it(home, refresh_dag, capfd):
    from corpusmill_operators.missing_pools import CONF_KEY, note_of

    note = note_of({"gpu", "default_pool"}, {"default_pool"})
    run = refresh_dag.test(logical_date=None, run_conf={"crawl": CRAWL, CONF_KEY: note})
    tries = {t.task_id: (str(t.state), t.try_number) for t in run.get_task_instances()}
    assert tries["plan"] == ("failed", 1)
    assert tries["ingest"][0] == "upstream_failed"
    said = capfd.readouterr().out
    assert f"plan failed: ConfigError: {CRAWL}: {note}" in said
    assert COMMAND in said


def test_what_the_plugin_registers_is_registered_by_the_plugins_folder_alone():
    """A second registration by an entry point makes Airflow's task processes drop other plugins without a word."""
    groups = {entry.group for entry in distribution("corpusmill").entry_points}
    assert "apache_airflow_provider" in groups
    assert "airflow.plugins" not in groups
    assert [p.name for p in (REPOSITORY / "plugins").glob("*.py")] == ["corpusmill_plugin.py"]


LOADED_PLUGINS = """
import json
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
print(json.dumps([[p.name for p in plugins], errors, sorted(plugins_manager.get_timetables_plugins())]))
"""


@pytest.mark.parametrize("second", ["corpusmill_plugin.py", "old/corpusmill_plugin.py", "z_copy.py"])
def test_a_copy_of_the_plugin_is_an_import_error_that_names_both_files(tmp_path, second):
    """Loads a plugins folder as every process of Airflow does; the first registration goes on working."""
    first = tmp_path / "a" / "corpusmill_plugin.py"
    for place in (first, tmp_path / "b" / second):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text((REPOSITORY / "plugins" / "corpusmill_plugin.py").read_text(encoding="utf-8"))
    environment = os.environ | {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path)}
    asked = subprocess.run(
        [sys.executable, "-c", LOADED_PLUGINS], env=environment, capture_output=True, text=True, check=True
    )
    names, errors, timetables = json.loads(asked.stdout.splitlines()[-1])
    assert names.count("corpusmill") == 1
    assert any(name.endswith("CrawlReleaseTimetable") for name in timetables)
    ((place, message),) = errors.items()
    both = {str(first), str(tmp_path / "b" / second)}
    assert place in both
    assert message.startswith("the plugin of corpusmill is registered twice: ")
    assert all(file in message for file in both)
    assert message.endswith("remove one of the two files and restart Airflow")


def test_a_wrong_key_of_a_recipe_shows_file_key_and_what_is_allowed(tmp_path):
    from corpusmill_operators.recipes import read_recipes

    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "typo.yaml").write_text(
        "name: typo\nrules: {presett: fineweb, languages: [xx]}\nshards: {max_shards: 0}\n"
    )
    recipes, broken = read_recipes(folder)
    assert recipes == []
    assert broken["typo"].startswith("recipes/typo.yaml: Recipe is not valid:")
    assert "rules.presett='fineweb': Extra inputs are not permitted" in broken["typo"]
    assert "shards.max_shards=0: Input should be greater than or equal to 1" in broken["typo"]


@pytest.mark.slow
def test_a_recipe_that_is_changed_under_a_running_run_holds_from_the_next_run_on(home, refresh_dag, tmp_path):
    base = failing.write_crawl(tmp_path / "crawls")
    plan = refresh_dag.get_task("plan")
    plan.recipe = {**failing.RECIPE, "validation": {"extra_checks": [failing.UNREACHABLE_CHECK]}}
    changed = {**failing.RECIPE, "rules": {"preset": "c4", "languages": ["de"]}}
    refresh_dag.get_task("commit_pages")._pre_execute_hook = lambda _: setattr(plan, "recipe", changed)
    run = refresh_dag.test(logical_date=None, run_conf={"crawl": failing.CRAWL, "source": str(base)})
    report = failing.reported(run)
    assert json.loads(report["config"])["rules"]["languages"] == ["en"]
    assert report["message"].startswith("validate failed: ValidationFailedError:"), "its own checks were made"
    funnel = {step["stage"]: step["documents_kept"] for step in json.loads(report["report"])["funnel"]}
    assert funnel["clean"] == 4, "its own rules were followed: none of the pages is German"
