"""A person is asked before a crawl with warnings is published: the task waits, and the answer decides."""

import contextlib
import importlib.util
import threading
import time
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("failing_runs", Path(__file__).parent / "failing_runs.py")
failing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(failing)

pytestmark = [
    pytest.mark.airflow, pytest.mark.integration, pytest.mark.slow, pytest.mark.filterwarnings("default"),
]  # fmt: skip
FOREIGN = Path(__file__).parent / "foreign"


@pytest.fixture
def audited(home, tmp_path):
    """Takes a small crawl to its validation; returns the plan."""
    from corpusmill.runner import chain

    base = str(failing.write_crawl(tmp_path / "crawls"))

    def make(**validation):
        recipe = {**failing.RECIPE, "validation": validation}
        made = chain.plan(recipe, failing.CRAWL, "audited", base)
        for stage in ("ingest", "clean", "refine_documents", "refine_chunks", "score", "assemble"):
            for shard in made["shards"]:
                chain.run_shard(made["plan"], stage, shard)
            chain.commit(made["plan"], stage)
            if stage == "clean":
                chain.deduplicate(made["plan"])
            if stage == "score":
                chain.select(made["plan"])
        chain.validate(made["plan"])
        return made["plan"]

    return make


@pytest.fixture
def client(airflow_db):
    """Airflow's own API with a user who may answer."""
    from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    purge_cached_app()
    app = create_app()
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="admin"))
    headers = {"Authorization": f"Bearer {token}"}
    with contextlib.closing(TestClient(app, headers=headers)) as found:
        yield found
    purge_cached_app()


def published():
    from corpusmill.runner.open_lakehouse import open_lakehouse

    return open_lakehouse().table("demo.corpus").count({"crawl": failing.CRAWL})


def asked(client):
    """The question that waits, as the UI gets it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = client.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params={"response_received": False}).json()
        waiting = [d for d in found["hitl_details"] if d["task_instance"]["dag_id"] == "approval"]
        if waiting:
            return waiting[0]
        time.sleep(0.3)
    raise AssertionError("nobody was asked within two minutes")


def run_and_answer(dag, plan, client, answer):
    """Runs the DAG here, because tasks set signals, and answers from a thread."""
    questions = []

    def answering():
        question = asked(client)
        questions.append((question, published()))
        ti = question["task_instance"]
        path = f"/api/v2/dags/approval/dagRuns/{ti['dag_run_id']}/taskInstances/approve/-1/hitlDetails"
        client.patch(path, json={"chosen_options": [answer], "params_input": {}}).raise_for_status()

    person = threading.Thread(target=answering, daemon=True)
    person.start()
    run = dag.test(logical_date=None, run_conf={"plan": plan, "crawl": failing.CRAWL})
    person.join(10)
    ((question, n_published),) = questions
    assert n_published == 0, "readers see nothing while the question waits"
    return run, question


def test_an_approved_crawl_is_published(audited, client, load_dags):
    plan = audited(max_kept_share=0.0, min_kept_share=0.0)
    run, question = run_and_answer(load_dags(FOREIGN)["approval"], plan, client, "Approve")
    assert failing.CRAWL in question["body"]
    assert r"kept\_share" in question["body"]
    assert run.state == "success"
    assert published() > 0


def test_a_rejected_crawl_is_not_published_and_the_message_names_who(audited, client, load_dags):
    plan = audited(max_kept_share=0.0, min_kept_share=0.0)
    run, _ = run_and_answer(load_dags(FOREIGN)["approval"], plan, client, "Reject")
    assert failing.states(run) == {("approve", -1): "failed", ("publish", -1): "upstream_failed"}
    assert failing.attempts(run, "approve") == 1
    first = failing.left_message(run, "approve")[0]
    assert "rejected the publication; nothing was published" in first
    assert "[permanent: " in first
    assert published() == 0


def test_without_a_warning_nobody_is_asked(audited, load_dags):
    plan = audited(max_kept_share=1.0, min_kept_share=0.0)
    run = load_dags(FOREIGN)["approval"].test(logical_date=None, run_conf={"plan": plan, "crawl": failing.CRAWL})
    assert run.state == "success"
    assert published() > 0


def test_text_that_a_warning_quotes_is_not_markup():
    from corpusmill_operators.approve_publication import _plain

    assert _plain("a <b>\n[x](javascript:y)") == r"a \<b\> \[x\]\(javascript:y\)"
