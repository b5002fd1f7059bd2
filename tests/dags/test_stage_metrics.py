"""What the stages count, as lines of StatsD on a real socket."""

import importlib.util
import socket
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("failing_runs", Path(__file__).parent / "failing_runs.py")
failing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(failing)

pytestmark = [
    pytest.mark.airflow, pytest.mark.integration, pytest.mark.slow, pytest.mark.filterwarnings("default"),
]  # fmt: skip


@pytest.fixture
def statsd(monkeypatch):
    """A StatsD server that Airflow's metrics go to; `lines` returns what has arrived since it was asked last."""
    pytest.importorskip("statsd")
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1]), "INFLUXDB_ENABLED": "True"}
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)  # as a task's process does

        def lines():
            found = []
            while True:
                try:
                    found.append(server.recv(65536).decode())
                except TimeoutError:
                    return found

        yield lines
        monkeypatch.undo()
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


def test_each_stage_of_a_run_counts_its_documents_once(home, refresh_dag, run_partition, tmp_path, statsd):
    base = failing.write_crawl(tmp_path / "crawls", pages=6)
    failing.damage_member(base, 1)
    refresh_dag.get_task("plan").recipe = {**failing.RECIPE, "ingest": {"max_error_fraction": 0.5}}
    enough = {"name": "none", "kind": "metric_between", "subject": "branch_rows", "minimum": 1e9, "why": "stop here"}
    refresh_dag.get_task("plan").recipe["validation"] = {"extra_checks": [enough]}
    run_partition(refresh_dag, None, {"crawl": failing.CRAWL, "source": str(base)})
    sent = [line for line in statsd() if line.startswith("airflow.corpusmill.")]
    assert sent.count("airflow.corpusmill.ingest.documents_in,recipe=demo:5|c") == 1
    assert sent.count("airflow.corpusmill.ingest.documents_quarantined,recipe=demo:1|c") == 1
    assert sent.count("airflow.corpusmill.clean.documents_in,recipe=demo:5|c") == 1
    stages = {line.split(".")[2] for line in sent}
    assert {"ingest", "clean", "deduplicate", "assemble"} <= stages
    timers = [line for line in sent if ".seconds," in line]
    assert len([line for line in timers if ".clean." in line]) == 1
    assert all(line.endswith("|ms") for line in timers)


def test_what_was_there_already_and_what_counts_no_documents_sends_nothing(airflow_db, statsd):
    from corpusmill_operators.stage_metrics import recipe_of, send_metrics

    send_metrics({"published": 3, "tag": "demo/A/1"}, "demo")
    send_metrics({"stage": "clean", "documents_in": 3, "documents_kept": 3, "skipped": True}, "demo")
    assert statsd() == []
    assert recipe_of("file:///w/_runs/demo/CC-MAIN-2024-10/epoch-00001/plan.json", "dag") == "demo"
    assert recipe_of(None, "dag") == "dag"
