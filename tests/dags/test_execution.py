"""Where tasks run comes from one file: seen on the DAGs as the scheduler gets them, and in the import errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = """
stages:
  "*": {queue: default, retry_delay_seconds: 15}
  "refine_*": {queue: gpu, pool_slots: 2}
  refine_chunks:
    executor: KubernetesExecutor
    pod_override:
      image: registry.example/corpusmill:worker-gpu
      resources: {requests: {memory: 8Gi}, limits: {nvidia.com/gpu: 1}}
      node_selector: {accelerator: h100}
      tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  "train_*": {executor: KubernetesExecutor, queue: gpu}
"""
PLACED = ["corpus_refresh.py", "build_refiner.py", "build_reference_model.py", "ablation.py"]
READ_DAGS = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

def read(text):
    with open(sys.argv[2], "a") as file:
        file.truncate(0)
        file.write(text)
    os.utime(sys.argv[2], (len(text), len(text)))
    bag = DagBag(dag_folder=sys.argv[1])
    tasks = {}
    for dag in bag.dags.values():
        again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        for task in again.tasks:
            pod = (task.executor_config or {}).get("pod_override")
            tasks[f"{dag.dag_id}.{task.task_id}"] = {
                "executor": task.executor, "queue": task.queue, "pool_slots": task.pool_slots,
                "retry_delay": task.retry_delay.total_seconds(), "pod": pod and pod.to_dict()["spec"],
            }
    return {"errors": bag.import_errors, "tasks": tasks}

print("READ", json.dumps([read(text) for text in json.loads(sys.stdin.read())]))
"""

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def errors_of(tmp_path, monkeypatch):
    """Returns a function that parses the DAGs under a file of placements and returns the import errors."""

    def parse(text):
        from airflow.dag_processing.dagbag import DagBag

        file = tmp_path / "execution.yaml"
        file.write_text(text)
        monkeypatch.setenv("CORPUSMILL_EXECUTION", str(file))
        return DagBag(dag_folder=str(REPOSITORY / "dags")).import_errors

    return parse


@pytest.fixture(scope="module")
def on_cluster(tmp_path_factory):
    """The DAGs under an Airflow with Celery, Kubernetes and an executor whose package is missing."""
    pytest.importorskip("airflow.providers.celery", reason="extra 'celery'")
    pytest.importorskip("airflow.providers.cncf.kubernetes", reason="extra 'kubernetes'")
    folder = tmp_path_factory.mktemp("cluster")
    texts = [
        CLUSTER,
        "stages: {score: {executor: ghost}}",
        "stages: {score: {queue: gpu, pod_override: {image: x}}}",
    ]
    environment = os.environ | {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor,KubernetesExecutor,ghost:not_there.GhostExecutor",
        "CORPUSMILL_EXECUTION": str(folder / "execution.yaml"),
    }
    command = [sys.executable, "-c", READ_DAGS, str(REPOSITORY / "dags"), str(folder / "execution.yaml")]
    done = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("READ "))
    return json.loads(line.removeprefix("READ "))


@pytest.mark.slow
def test_placements_reach_plain_and_mapped_tasks_through_serialisation(on_cluster):
    read = on_cluster[0]
    assert [file for file in read["errors"] if Path(file).name in PLACED] == []
    place = read["tasks"]
    plain = {"executor": None, "queue": "default", "pool_slots": 1, "retry_delay": 15.0, "pod": None}
    assert place["corpus_refresh_demo.plan"] == place["corpus_refresh_demo.ingest"] == plain
    documents, chunks = (place[f"corpus_refresh_demo.refine_{name}"] for name in ("documents", "chunks"))
    assert (documents["executor"], documents["queue"], documents["pool_slots"]) == (None, "gpu", 2)
    assert (chunks["executor"], chunks["queue"], chunks["pool_slots"]) == ("KubernetesExecutor", "gpu", 2)
    assert place["build_refiner_demo_extractor.train"]["executor"] == "KubernetesExecutor"
    assert place["build_reference_model_demo_reference.train"]["queue"] == "gpu"
    assert place["ablation_demo.train"]["executor"] == "KubernetesExecutor"
    assert place["build_refiner_demo_extractor.evaluate"]["executor"] is None


@pytest.mark.slow
def test_the_pod_of_a_stage_survives_serialisation(on_cluster):
    spec = on_cluster[0]["tasks"]["corpus_refresh_demo.refine_chunks"]["pod"]
    container = spec["containers"][0]
    assert (container["name"], container["image"]) == ("base", "registry.example/corpusmill:worker-gpu")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {"memory": "8Gi"}
    assert spec["node_selector"] == {"accelerator": "h100"}
    toleration = {key: value for key, value in spec["tolerations"][0].items() if value is not None}
    assert toleration == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert on_cluster[0]["tasks"]["corpus_refresh_demo.refine_documents"]["pod"] is None


@pytest.mark.slow
def test_a_missing_package_and_a_pod_without_kubernetes_are_said_in_the_import_errors(on_cluster):
    missing, podless = ("\n".join(read["errors"].values()) for read in on_cluster[1:])
    assert "stages.score.executor='ghost' is configured but 'not_there.GhostExecutor' is not installed" in missing
    assert "stage 'score' has a pod_override, but its tasks go to CeleryExecutor" in podless
    assert not [task for read in on_cluster[1:] for task in read["tasks"] if task.startswith("corpus_refresh_")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {scoer: {queue: gpu}}", "stages.scoer: there is no such stage; expected one of ['annotate_seed'"),
        ("stages: {score: {que: gpu}}", "stages.score.que='gpu': Extra inputs are not permitted"),
        ("stages: {score: {pool_slots: 0}}", "stages.score.pool_slots=0"),
        ("stage: {}", "stages={'stage': {}}: Field required"),
        ("stages: [", "is not YAML"),
        ("stages: {score: {executor: CeleryExecutor}}", "is not configured; AIRFLOW__CORE__EXECUTOR lists ['LocalEx"),
    ],
)
def test_a_mistake_is_an_import_error_that_names_file_value_and_choices(errors_of, tmp_path, text, said):
    errors = errors_of(text)
    by_name = {Path(file).name: message for file, message in errors.items()}
    for name in PLACED:  # every DAG file, so that nothing runs in the wrong place
        message = by_name[name]
        assert said in message
        assert f"CORPUSMILL_EXECUTION={tmp_path}/execution.yaml" in message


def test_a_file_that_is_not_there_is_an_import_error(tmp_path, monkeypatch):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("CORPUSMILL_EXECUTION", str(tmp_path / "none.yaml"))
    errors = DagBag(dag_folder=str(REPOSITORY / "dags" / "corpus_refresh.py")).import_errors
    assert "none.yaml' is not a file" in next(iter(errors.values()))


def test_in_a_pod_of_the_kubernetes_executor_nothing_is_placed_again(monkeypatch, tmp_path):
    from corpusmill_operators import ScoreUnitsOperator
    from corpusmill_operators.execution import task_arguments

    monkeypatch.setenv("CORPUSMILL_EXECUTION", str(tmp_path / "none.yaml"))
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert task_arguments(ScoreUnitsOperator) == {}


def test_every_operator_has_a_stage_of_its_own_and_derived_classes_belong_to_it():
    import corpusmill_operators as mill
    from corpusmill_operators.execution import known_stages, stage_of

    names = [name for name in mill.__all__ if name.endswith("Operator")]
    stages = [stage_of(getattr(mill, name)) for name in names]
    assert sorted(stages) == known_stages()
    assert {"ingest", "clean", "deduplicate", "refine_chunks", "score", "train_refiner", "train_arm"} <= set(stages)
    assert stage_of(type("MyClean", (mill.CleanRulesOperator,), {})) == "clean"
