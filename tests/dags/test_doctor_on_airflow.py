"""The doctor reads pools and connections from a real metadata database, whose tables are Airflow's."""

import datetime as dt
import os

import pytest

from corpusmill.doctor.airflow_database import airflow_database, check_pools, check_schedulers
from corpusmill.doctor.recipes import check_endpoints
from corpusmill.recipe import parse_recipe

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def database(airflow_db, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_DEVICES", "0")
    found = airflow_database()
    assert found.url == os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    return found


def test_a_pool_that_somebody_deleted_is_an_error_and_tells_how_to_make_it(database):
    from airflow.models import Pool

    (finding,) = check_pools(database)
    assert finding.level == "ok", finding
    Pool.delete_pool("gpu")
    try:
        (finding,) = check_pools(database)
    finally:
        Pool.create_or_update_pool("gpu", 1, "", include_deferred=False)
    assert finding.level == "error"
    assert "stay 'scheduled' for ever" in finding.what


def test_a_model_server_is_known_once_its_connection_was_added(database):
    from airflow.models import Connection
    from airflow.utils.session import create_session

    refine = {"backend": "completions", "model": "m/m", "endpoint": "doctors_model"}
    recipe = parse_recipe({"name": "mine", "refine_documents": refine})
    (finding,) = check_endpoints(recipe, database)
    assert finding.level == "error"
    assert "airflow connections add doctors_model" in finding.todo
    added = Connection(conn_id="doctors_model", conn_type="http", host="http://host:8000/v1")
    with create_session() as session:
        session.add(added)
    try:
        (finding,) = check_endpoints(recipe, database)
    finally:
        with create_session() as session:
            session.delete(session.merge(added))
    assert finding.level == "ok"


def test_two_schedulers_on_sqlite_are_an_error_and_dead_ones_do_not_count(database):
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session

    now = dt.datetime.now(dt.UTC)
    ages = {"first": 3, "second": 7, "dead": 3600}
    beats = {host: now - dt.timedelta(seconds=age) for host, age in ages.items()}
    jobs = [Job(job_type="SchedulerJob", state="running", hostname=h, latest_heartbeat=b) for h, b in beats.items()]
    assert database.is_sqlite
    with create_session() as session:
        session.add_all(jobs)
    try:
        (finding,) = check_schedulers(database, now)
        assert (finding.level, finding.what) == ("error", "2 alive: first, second, on SQLite")
        (finding,) = check_schedulers(database, now + dt.timedelta(seconds=56))
        assert (finding.level, finding.what) == ("ok", "1 alive: first")
    finally:
        with create_session() as session:
            for job in jobs:
                session.delete(session.merge(job))
