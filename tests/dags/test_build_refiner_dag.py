"""The real build DAGs against a real chat server: two domains, one code; a server that dies; a gate that is not met."""

import json
import os
import subprocess
import sys
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
SERVER = HERE.parent / "servers" / "completions_server.py"

pytestmark = [
    pytest.mark.airflow, pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]  # fmt: skip


@pytest.fixture
def teacher(tmp_path):
    """Starts the chat server and returns its address; faults can be given as a list."""
    started = []

    def start(faults=()):
        file = tmp_path / f"faults{len(started)}.json"
        file.write_text(json.dumps(list(faults)))
        command = [sys.executable, SERVER, "--script", HERE / "teacher.py", "--name", "large-model", "--faults", file]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def pages(tmp_path):
    """Pages of 30 sites: menus of short lines around sentences."""
    path = tmp_path / "pages.jsonl"
    rows = [
        {
            "id": f"page-{i}",
            "url": f"https://www.site{i}.org/",
            "text": "\n".join(
                [
                    "Home",
                    "About us",
                    *(f"Sentence {k} of article {i} is long enough to be kept." for k in range(6)),
                    "Share",
                ]
            ),
        }
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipes(tmp_path, repository, monkeypatch, pages):
    """Copies of the shipped recipes with short trainings, read by the DAG file in place of the shipped ones."""
    folder = tmp_path / "refiners"
    folder.mkdir()

    def write(name, **changes):
        values = yaml.safe_load((repository / "dags" / "refiners" / f"{name}.yaml").read_text())
        if "table" in values["seed"]:
            values["seed"] = {"files": [str(pages)], "n_documents": 30, "max_shards": 2}
        values["train"] = {"kind": "labeller", "steps": 20}
        values.update(changes)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))

    monkeypatch.setenv("CORPUSMILL_REFINER_RECIPES", str(folder))
    return write


@pytest.fixture
def run(airflow_db, load_dags, home):
    def start(name):
        run = load_dags()[f"build_refiner_{name}"].test(logical_date=None)
        return run, {(t.task_id, t.map_index): str(t.state) for t in run.get_task_instances()}

    return start


def models():
    from corpusmill.runner.open_lakehouse import open_lakehouse

    return open_lakehouse().table("ops.models").scan(None).to_pylist()


def events(name):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(AssetEvent)).all()
        return [event.extra for event in found if event.asset.name == f"refiner.{name}"]


def test_two_domains_are_built_by_the_same_code_from_recipes_alone(
    teacher, recipes, run, repository, monkeypatch, shared_data
):
    monkeypatch.setenv("AIRFLOW_CONN_LARGE_MODEL", json.dumps({"conn_type": "http", "host": teacher()}))
    monkeypatch.setenv("CORPUSMILL_MATH_SEED", str(shared_data / "web_jsonl" / "dj_*exchange*.jsonl.gz"))
    recipes("general")
    recipes("math", gate={"keep_f1": 0.3})
    for name in ("general", "math"):
        done, states = run(name)
        assert done.state == "success", states
        assert set(states.values()) == {"success"}
    by_name = {row["name"]: row for row in models()}
    assert set(by_name) == {"general", "math"}
    assert json.loads(by_name["general"]["quality"])["keep_f1"] >= 0.6
    event = events("math")[-1]
    assert event["model"] == f"registered:math@{by_name['math']['version']}"
    assert event["keep_f1"] == json.loads(by_name["math"]["quality"])["keep_f1"]


def test_a_teacher_that_dies_costs_only_the_missing_answers(teacher, recipes, run, monkeypatch):
    from corpusmill_operators.retries import RETRY_POLICY

    for rule in RETRY_POLICY.rules:
        if rule.retry_delay is not None:
            monkeypatch.setattr(rule, "retry_delay", timedelta(seconds=1))
    recipes("general")
    variable = "CORPUSMILL_ENDPOINT_LARGE_MODEL"
    monkeypatch.setenv(f"{variable}_MAX_RETRIES", "0")
    monkeypatch.setenv(f"{variable}_MAX_CONCURRENCY", "1")
    monkeypatch.setenv(variable, teacher([{"kind": "die", "after": 9}]))
    done, states = run("general")
    assert done.state == "failed"
    assert states["register", -1] != "success"
    assert models() == []
    monkeypatch.setenv(variable, teacher())
    done, states = run("general")
    assert done.state == "success", states
    asked = json.load(urllib.request.urlopen(os.environ[variable].removesuffix("/v1") + "/admin/requests"))
    assert len(asked) == 30 - 9


def test_a_gate_that_is_not_met_fails_at_once_and_names_the_figure(teacher, recipes, run, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_LARGE_MODEL", teacher())
    recipes("general", gate={"keep_f1": 1.1})
    done, states = run("general")
    assert done.state == "failed"
    assert (states["evaluate", -1], states["register", -1]) == ("failed", "upstream_failed")
    task = next(t for t in done.get_task_instances() if t.task_id == "evaluate")
    assert task.try_number == 1
    assert "keep_f1 is" in task.xcom_pull(task_ids="evaluate", key="error")
    assert models() == []
