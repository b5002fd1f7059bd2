"""The real DAG of a reference model: two mapped seeds, three checkpoints, a task that is killed, a second run."""

import json
import os
import signal
import threading
import time
from datetime import timedelta

import psutil
import pytest
import yaml

pytestmark = [
    pytest.mark.airflow, pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]  # fmt: skip
DAG = "build_reference_model_demo_reference"


@pytest.fixture
def run(airflow_db, load_dags, home, monkeypatch):
    from corpusmill_operators.retries import RETRY_POLICY

    for rule in RETRY_POLICY.rules:
        if rule.retry_delay is not None:
            monkeypatch.setattr(rule, "retry_delay", timedelta(seconds=1))

    def start():
        run = load_dags()[DAG].test(logical_date=None)
        return run, {(t.task_id, t.map_index): t for t in run.get_task_instances()}

    return start


def models():
    from corpusmill.runner.open_lakehouse import open_lakehouse

    table = open_lakehouse().table("ops.models")
    return table.snapshot_id(), {row["name"]: row for row in table.scan(None).to_pylist()}


def kill_first_training(home):
    """Kills the worker of the first seed with SIGKILL once it has a checkpoint."""

    def watch():
        for _ in range(30_000):
            if list(home.glob("scratch/reference_models/*/*/seed0/training_state.pt")):
                for child in psutil.Process().children(recursive=True):
                    if "corpusmill.worker" in child.cmdline():
                        os.kill(child.pid, signal.SIGKILL)
                        killed.append(child.pid)
                return
            time.sleep(0.01)

    killed = []
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return killed


def test_seeds_are_mapped_a_killed_one_goes_on_and_a_second_run_does_nothing_new(run, home):
    killed = kill_first_training(home)
    done, tasks = run()
    assert done.state == "success", {key: str(task.state) for key, task in tasks.items()}
    assert len(killed) == 1
    assert {key: task.try_number for key, task in tasks.items() if key[0] == "train"} == {
        ("train", 0): 2,
        ("train", 1): 1,
    }
    assert tasks["train", 1].rendered_map_index == "seed1"
    snapshot, rows = models()
    plain = rows.pop("demo_reference")
    quality = json.loads(plain["quality"])
    assert set(rows) == {member["model"].removeprefix("registered:").split("@")[0] for member in quality["members"]}
    assert [(m["seed"], m["mark"]) for m in quality["members"]] == [
        (seed, mark) for seed in (0, 1) for mark in ("14%", "55%", "100%", "end")
    ]
    assert plain["location"] == next(row["location"] for name, row in rows.items() if name == last_of(quality, 0))
    again, tasks = run()
    assert again.state == "success"
    assert tasks["train", 0].xcom_pull(task_ids="train", map_indexes=0)["skipped"]
    assert tasks["pack", -1].xcom_pull(task_ids="pack")["skipped"]
    assert tasks["register", -1].xcom_pull(task_ids="register")["new"] == 0
    assert models()[0] == snapshot
    events = [event["model"] for event in asset_events()]
    assert events == [f"registered:demo_reference@{plain['version']}"] * 2


def last_of(quality, seed):
    reference = [m["model"] for m in quality["members"] if m["seed"] == seed][-1]
    return reference.removeprefix("registered:").split("@")[0]


def asset_events():
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(AssetEvent)).all()
        return [event.extra for event in found if event.asset.name == "reference_model.demo_reference"]


def test_every_recipe_has_its_dag_and_a_broken_one_takes_no_other_along(load_dags, tmp_path, repository, monkeypatch):
    shipped = sorted((repository / "dags" / "reference_models").glob("*.yaml"))
    names = {f"build_reference_model_{yaml.safe_load(path.read_text())['name']}" for path in shipped}
    dags = load_dags()
    assert names == {name for name in dags if name.startswith("build_reference_model_")}
    dag = dags[DAG]
    assert [t.task_id for t in dag.topological_sort()] == ["plan", "pack", "train", "evaluate", "register"]
    assert {t.task_id for t in dag.tasks if t.pool == "gpu"} == {"train"}
    assert all(t.retries > 0 and t.execution_timeout for t in dag.tasks)
    (tmp_path / "good.yaml").write_text(shipped[1].read_text())
    (tmp_path / "bad.yaml").write_text("name: bad\ncorpus: {files: [x]}\ntraining: {steps: 1, epochs: 1}\n")
    monkeypatch.setenv("CORPUSMILL_REFERENCE_MODEL_RECIPES", str(tmp_path))
    dags = load_dags()
    assert "exactly one of steps and epochs" in dags["build_reference_model_bad"].doc_md
    assert DAG in dags
