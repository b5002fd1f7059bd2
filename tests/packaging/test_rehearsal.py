"""The parts of the rehearsal that its own run cannot show: how it fails, and that it leaves nothing behind."""

import os
import sys
from pathlib import Path

import psutil
import pytest

DOCKER = Path(__file__).resolve().parents[2] / "docker"
TREE = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"


@pytest.fixture
def processes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCKER))
    from rehearsal.native_processes import NativeProcesses

    made = NativeProcesses(tmp_path / "run")
    yield made
    made.stop()


def children(name):
    return [p for p in psutil.Process().children(recursive=True) if name in command_line(p)]


def command_line(process):
    """The command of a process, "" of one that has ended and was not waited for yet."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def start_tree(processes, name):
    processes.start(name, [sys.executable, "-c", TREE], os.environ)
    processes.wait_for(lambda: len(children("time.sleep(60)")) >= 2, 20, "the child")


def test_a_killed_process_takes_everything_below_it_along(processes):
    start_tree(processes, "worker-1")
    inner = next(p for p in children("time.sleep(60)") if "subprocess" not in command_line(p))
    assert processes.owner_of(inner.pid, ["other", "worker-1"]) == "worker-1"
    assert processes.owner_of(os.getpid(), ["worker-1"]) is None
    assert processes.kill("worker-1") == 2
    assert not inner.is_running()
    processes.check()  # what was killed on purpose is not missed


def test_the_end_leaves_no_process(processes):
    start_tree(processes, "scheduler")
    processes.stop()
    assert children("time.sleep(60)") == []


def test_a_process_that_ends_or_fails_is_told_with_its_log(processes):
    from rehearsal.native_processes import RehearsalError

    processes.start("broker", [sys.executable, "-c", "raise SystemExit('port 1 is taken')"], os.environ)
    with pytest.raises(RehearsalError, match=r"broker ended with 1; log: .*/broker\.log\n +port 1 is taken"):
        processes.wait_for(lambda: False, 20, "nothing")
    begun = processes.begin("init", [sys.executable, "-c", "raise SystemExit('no database')"], os.environ)
    with pytest.raises(RehearsalError, match=r"init ended with 1(?s:.)*no database"):
        processes.finish("init", begun, 20)
    begun = processes.begin("digests", [sys.executable, "-c", "print('first'); print('last')"], os.environ)
    assert processes.finish("digests", begun, 20) == "last"
    with pytest.raises(RehearsalError, match="'no-such-server' is not installed"):
        processes.start("redis", ["no-such-server"], os.environ)


def test_services_run_natively_with_the_environment_of_the_file(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCKER))
    from rehearsal.__main__ import variables
    from rehearsal.native_cluster import NativeCluster
    from rehearsal.native_processes import NativeProcesses

    values = variables()
    cluster = NativeCluster(DOCKER.parent, tmp_path, values, NativeProcesses(tmp_path))
    worker = cluster.native("worker")
    environment = cluster.environment(worker)
    assert list(worker.command) == ["airflow", "celery", "worker", "--queues", "default", "--skip-serve-logs"]
    assert cluster.services["worker"].replicas == 2
    broker = f"redis://:{values['REDIS_PASSWORD']}@127.0.0.1:{cluster.ports['redis']}/0"
    assert environment["AIRFLOW__CELERY__BROKER_URL"] == broker
    assert environment["CORPUSMILL_EXECUTION"] == str(DOCKER / "execution.yaml")
    assert environment["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] == values["HEARTBEAT_TIMEOUT"]
    left = [
        v for v in environment.values() if "/opt/airflow" in v or "@postgres" in v or "//apiserver" in v or "//s3" in v
    ]
    assert left == []
    assert "airflow db migrate\n" in cluster.native("init").command[-1]
    assert str(DOCKER / "pools.json") in cluster.native("init").command[-1]
