"""The doctor reads pools and connections from a real metadata database, whose tables are Airflow's."""

import os

import pytest

from corpusmill.doctor.airflow_database import airflow_database, check_pools
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
