"""An Airflow of its own for the DAG tests: one SQLite metadata database for the session, one lakehouse per test."""

import importlib
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="corpusmill-airflow-"))
BUNDLE = '{"name": "%s", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": "%s"}}'

# Airflow reads all of this when it is imported first, so it is set before any test module can do that.
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(REPOSITORY / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(REPOSITORY / "plugins"),
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL="0",  # a test that changes a DAG means it now
    AIRFLOW__OPENLINEAGE__DISABLED="True",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AIRFLOW__API_AUTH__JWT_SECRET="only-for-tests-" * 5,
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=(
        f"[{BUNDLE % ('dags-folder', REPOSITORY / 'dags')}, {BUNDLE % ('foreign', REPOSITORY / 'tests/dags/foreign')}]"
    ),
)


@pytest.fixture(scope="session")
def airflow_db():
    """A migrated metadata database with the pools that initialisation makes."""
    from airflow.models import Pool
    from airflow.utils import db

    from corpusmill_operators.pools import pool_definitions

    db.initdb()
    for name, pool in pool_definitions().items():
        Pool.create_or_update_pool(name, pool["slots"], pool["description"], pool["include_deferred"])
    yield
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def load_dags():
    """Returns a function that parses a folder and returns its DAGs by id."""

    def load(folder=REPOSITORY / "dags"):
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(folder))
        assert bag.import_errors == {}
        return bag.dags

    return load


@pytest.fixture
def short_pauses(monkeypatch):
    """Lets a task that may pass be tried again after a tenth of a second."""
    from corpusmill_operators.retries import RETRY_POLICY

    for rule in RETRY_POLICY.rules:
        if rule.retry_delay is not None:
            monkeypatch.setattr(rule, "retry_delay", timedelta(seconds=0.1))


@pytest.fixture
def refresh_dag(airflow_db, load_dags, short_pauses):
    """The DAG of the demo recipe, parsed anew, with short pauses between attempts."""
    return load_dags()["corpus_refresh_demo"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty corpusmill home with an initialised lakehouse for the demo recipe."""
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    chain = importlib.import_module("corpusmill.runner.chain")
    chain.initialise(["demo"])
    return tmp_path / "home"


@pytest.fixture(scope="session")
def run_partition():
    """Returns a function that runs a DAG for one crawl, with the crawl as partition key (`dag.test` knows none)."""

    def run(dag, key, conf=None):
        if key is None:
            return dag.test(logical_date=None, run_conf=conf)
        from airflow.serialization.definitions.dag import SerializedDAG

        create = SerializedDAG.create_dagrun

        def with_partition(self, **arguments):
            arguments.update(partition_key=key, partition_date=self.timetable.resolve_partition_date(key))
            return create(self, **arguments)

        with patch.object(SerializedDAG, "create_dagrun", with_partition):
            return dag.test(logical_date=None, run_conf=conf)

    return run


@pytest.fixture(scope="session")
def shared_crawls():
    """The folder of real crawls, or a skip where there is none."""
    data = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (data / "crawls").is_dir():
        pytest.skip(f"no shared data at {data}; set CORPUSMILL_SHARED_DATA")
    return data / "crawls"
