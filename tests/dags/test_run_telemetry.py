"""What a run tells others while it works: counts over StatsD and OpenTelemetry on real sockets, OpenLineage events."""

import contextlib
import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
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


@pytest.fixture
def statsd(monkeypatch):
    """A StatsD server that Airflow's metrics go to; `lines` returns what has arrived since it was asked last."""
    pytest.importorskip("statsd")
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.5)
        settings = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1]), "INFLUXDB_ENABLED": "True"}
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)  # as a task's process does

        received = []

        def listen():  # at once: the system keeps some hundred datagrams only
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    received.append(server.recv(65536).decode())

        def lines():
            time.sleep(1.0)
            return [received.pop(0) for _ in range(len(received))]

        ended, listener = threading.Event(), threading.Thread(target=listen)
        listener.start()
        yield lines
        ended.set()
        listener.join()
        monkeypatch.undo()
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


@pytest.fixture
def lineage(monkeypatch, tmp_path):
    """Airflow's OpenLineage listener with the provider's file transport; returns a function that reads the events."""
    pytest.importorskip("airflow.providers.openlineage")
    file = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    settings = {
        "DISABLED": "False",
        "TRANSPORT": json.dumps(transport),
        "EXECUTE_IN_THREAD": "True",
        "NAMESPACE": "mill",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__OPENLINEAGE__{name}", value)
    from airflow.providers.openlineage import conf
    from airflow.providers.openlineage.plugins.listener import get_openlineage_listener
    from airflow.sdk.listener import get_listener_manager

    def forget_settings():
        for value in vars(conf).values():
            getattr(value, "cache_clear", lambda: None)()

    forget_settings()
    listener, manager = get_openlineage_listener(), get_listener_manager()
    if not manager.pm.is_registered(listener):  # the provider's plugin was loaded while lineage was off
        manager.add_listener(listener)
    yield lambda: [json.loads(line) for line in file.read_text().splitlines()]
    manager.pm.unregister(listener)
    monkeypatch.undo()
    forget_settings()


def test_a_run_counts_its_documents_once_and_tells_where_its_rows_come_from(
    home, refresh_dag, run_partition, tmp_path, statsd, lineage
):
    base = failing.write_crawl(tmp_path / "crawls", pages=6)
    failing.damage_member(base, 1)
    refresh_dag.get_task("plan").recipe = {
        **failing.RECIPE,
        "ingest": {"max_error_fraction": 0.5},
        "validation": {"extra_checks": [failing.UNREACHABLE_CHECK]},
    }
    run_partition(refresh_dag, None, {"crawl": failing.CRAWL, "source": str(base)})
    check_metrics([line for line in statsd() if line.startswith("airflow.corpusmill.")])
    check_lineage(lineage(), str(base), f"file://{home}/warehouse")


def check_metrics(sent):
    assert sent.count("airflow.corpusmill.ingest.documents_in,recipe=demo:5|c") == 1
    assert sent.count("airflow.corpusmill.ingest.documents_quarantined,recipe=demo:1|c") == 1
    assert sent.count("airflow.corpusmill.clean.documents_in,recipe=demo:5|c") == 1
    assert {"ingest", "clean", "deduplicate", "assemble"} <= {line.split(".")[2] for line in sent}
    timers = [line for line in sent if ".seconds," in line]
    assert len([line for line in timers if ".clean." in line]) == 1
    assert all(line.endswith("|ms") for line in timers)


def check_lineage(events, base, warehouse):
    ended = {e["job"]["name"].rpartition(".")[2]: e for e in events if e["eventType"] in ("COMPLETE", "FAIL")}

    def names(task, side):
        return [(d["namespace"], d["name"]) for d in ended[task][side]]

    assert names("commit_pages", "inputs") == [(base, f"crawl-data/{failing.CRAWL}")]
    assert names("commit_pages", "outputs") == names("commit_documents", "inputs") == [(warehouse, "raw.pages")]
    assert names("commit_documents", "outputs") == names("deduplicate", "inputs") == [(warehouse, "demo.documents")]
    (documents,) = ended["commit_documents"]["outputs"]
    assert documents["outputFacets"]["outputStatistics"]["rowCount"] == 5
    columns = {field["name"]: field["type"] for field in documents["facets"]["schema"]["fields"]}
    assert (columns["doc_id"], columns["n_chars"]) == ("large_string", "int64")
    assert documents["facets"]["version"]["datasetVersion"].isdigit()
    (checked,) = ended["validate"]["inputs"]
    assert checked["name"] == "demo.corpus"
    together, broken = checked["inputFacets"]["dataQualityAssertions"]["assertions"][:2]
    assert (together["assertion"], together["success"]) == ("all_critical_checks", False)
    assert broken["success"] is False
    assert "branch_rows" in broken["description"]
    assert ended["validate"]["eventType"] == "FAIL"


def test_what_was_there_already_and_what_counts_no_documents_sends_nothing(airflow_db, statsd):
    from corpusmill_operators.stage_metrics import recipe_of, send_metrics

    send_metrics({"published": 3, "tag": "demo/A/1"}, "demo")
    send_metrics({"stage": "clean", "documents_in": 3, "documents_kept": 3, "skipped": True}, "demo")
    assert statsd() == []
    assert recipe_of("file:///w/_runs/demo/CC-MAIN-2024-10/epoch-00001/plan.json", "dag") == "demo"
    assert recipe_of(None, "dag") == "dag"


class OpenTelemetryCollector(http.server.BaseHTTPRequestHandler):
    """Keeps the bodies that are posted to it."""

    bodies: list[bytes]

    def do_POST(self):  # the name is http.server's
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


TASK = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)  # as a task's process does

from corpusmill_operators.stage_metrics import send_metrics
report = {"stage": "clean", "documents_in": 5, "documents_kept": 3, "removed": {"a": 1, "b": 1}, "seconds": 2.5}
send_metrics(report, "demo")
"""


def test_the_counts_of_a_stage_reach_an_opentelemetry_collector(airflow_db):
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    collector = type("Collector", (OpenTelemetryCollector,), {"bodies": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {"OTEL_ON": "True", "OTEL_HOST": "127.0.0.1", "OTEL_PORT": str(server.server_port)}
        environment = os.environ | {f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()}
        subprocess.run([sys.executable, "-c", TASK], env=environment, check=True)
        server.shutdown()
    points = {}
    for body in collector.bodies:
        sent = service.ExportMetricsServiceRequest.FromString(body)
        for metric in (m for r in sent.resource_metrics for s in r.scope_metrics for m in s.metrics):
            kind = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points:
                tags = {a.key: a.value.string_value for a in point.attributes}
                points[metric.name, tags.get("recipe")] = (
                    point.sum if "histogram" in kind else point.as_double or point.as_int
                )
    assert {name.removeprefix("airflow.corpusmill.clean."): value for (name, _), value in points.items()} == {
        "documents_in": 5,
        "documents_kept": 3,
        "documents_removed": 2,
        "documents_quarantined": 0,
        "seconds": pytest.approx(2500),
    }
    assert {recipe for _, recipe in points} == {"demo"}
