"""The local Airflow of the demo: its settings, its processes and their end, what a person sees."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from corpusmill.errors import ConfigError
from corpusmill_operators.local.api import AirflowApi
from corpusmill_operators.local.processes import AirflowProcesses, only_one
from corpusmill_operators.local.progress import RunProgress
from corpusmill_operators.local.settings import LocalSettings, local_settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path):
    return LocalSettings(home=tmp_path / "home", project=REPOSITORY, port=8765)


def test_settings_of_another_airflow_do_not_reach_the_local_one(settings, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/somewhere/else")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "other.Manager")
    environment = settings.environment()
    assert environment["AIRFLOW_HOME"] == str(settings.home / "airflow")
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("sqlite:///")
    assert "AIRFLOW__CORE__AUTH_MANAGER" not in environment
    assert environment["CORPUSMILL_HOME"] == str(settings.home)


def test_a_server_without_login_listens_on_this_machine_only(settings):
    environment = settings.environment()
    assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "True"
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_the_signing_key_is_long_stays_the_same_and_is_readable_by_its_owner_only(settings):
    first, second = (settings.environment()["AIRFLOW__API_AUTH__JWT_SECRET"] for _ in range(2))
    assert first == second
    assert len(first) >= 64
    assert (settings.airflow_home / "jwt_secret").stat().st_mode & 0o077 == 0


def test_a_folder_without_dags_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no dags/corpus_refresh.py"):
        local_settings(tmp_path, fixed_port=False)


def test_one_local_airflow_at_a_time_uses_a_home(settings):
    with only_one(settings), pytest.raises(ConfigError, match=f"process {os.getpid()}"), only_one(settings):
        pass
    with only_one(settings):
        pass


ORPHANS = """
import subprocess, sys
from corpusmill_operators.local.processes import adopt_orphans, end_descendants
adopt_orphans()
sleeper = "subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=subprocess.DEVNULL)"
middle = f"import subprocess; print({sleeper}.pid)"
made = subprocess.run([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True)
print(made.stdout.strip(), flush=True)
end_descendants()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is a Linux call")
def test_a_process_whose_parent_died_is_ended_too():
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=True, timeout=60)
    assert not psutil.pid_exists(int(done.stdout))


def test_what_a_killed_start_left_is_ended_before_the_next_one_and_nothing_else(settings):
    settings.airflow_home.mkdir(parents=True)
    left, other = (subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2))
    try:
        known = {left.pid: psutil.Process(left.pid).create_time(), other.pid: 1.0}  # its number, but another start
        (settings.airflow_home / "processes.json").write_text(json.dumps(known))
        with AirflowProcesses(settings, []):
            assert left.poll() is not None
            assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()
    assert not (settings.airflow_home / "processes.json").exists()


class Canned(BaseHTTPRequestHandler):
    """Answers like Airflow's REST API, from `answers`; a list is given page by page."""

    answers: ClassVar[dict] = {}

    def do_GET(self):
        path = self.path.split("?")[0].removeprefix("/api/v2")
        value = self.answers.get(path)
        if isinstance(value, list):
            value = value.pop(0) if len(value) > 1 else value[0]
        body = json.dumps(value or {"detail": "not found"}).encode()
        self.send_response(200 if value else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def api(tmp_path):
    """A client of a server that gives the answers of `Canned.answers`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = LocalSettings(home=tmp_path, project=REPOSITORY, port=server.server_port)
    yield AirflowApi(AirflowProcesses(settings, []))
    server.shutdown()
    server.server_close()


def task(name, state, index=-1, **more):
    known = {"start_date": "2024-01-01", "end_date": None, "duration": 2.0, "try_number": 1, "rendered_map_index": None}
    return {"task_id": name, "state": state, "map_index": index, **known, **more}


RUN = "backfill__A-2024-10__1"
BASE = f"/dags/d/dagRuns/{RUN}"


def answers(state, *tasks, **entries):
    page = {"task_instances": list(tasks), "total_entries": len(tasks)}
    made = {BASE: {"state": state, "partition_key": "A-2024-10"}, f"{BASE}/taskInstances": page}
    for name, value in entries.items():
        made[f"{BASE}/taskInstances/{name}"] = {"value": value}
    return made


def test_progress_is_one_line_per_stage_with_its_shards_and_seconds(api, tmp_path):
    Canned.answers = answers(
        "success", task("plan", "success"), task("clean", "success", 0), task("clean", "success", 1),
        task("report", "success"),
    )  # fmt: skip
    lines = []
    progress = RunProgress(api, "d", [RUN], tmp_path, lines.append)
    assert progress.follow(lambda: None) == {RUN: "success"}
    assert [" ".join(line.split()) for line in lines] == [
        "A-2024-10 plan done 2.0 s",
        "A-2024-10 clean done 2 of 2 shards 4.0 s",
    ]


def test_a_failure_is_told_with_shard_message_and_log_and_the_report_is_no_cause_of_its_own(api, tmp_path):
    failed = task("clean", "failed", 1, rendered_map_index="00001", try_number=3, end_date="2024-01-02")
    Canned.answers = answers(
        "failed", task("clean", "success", 0), failed, task("report", "failed"),
        **{"clean/xcomEntries/error": "DataError: what was wrong"},
    )  # fmt: skip
    lines = []
    progress = RunProgress(api, "d", [RUN], tmp_path, lines.append)
    assert progress.follow(lambda: None) == {RUN: "failed"}
    (failure,) = progress.failures()
    assert (failure.crawl, failure.task) == ("A-2024-10", "clean[00001]")
    assert failure.message == "DataError: what was wrong"
    assert failure.log == tmp_path / f"dag_id=d/run_id={RUN}/task_id=clean/map_index=1/attempt=3.log"
    assert any("FAILED 1 of 2 shards" in line for line in lines)


def test_a_repeated_attempt_is_told_once(api, tmp_path):
    repeated = answers("running", task("score", "up_for_retry", 0, rendered_map_index="00000"))
    ended = answers("success", task("score", "success", 0))
    Canned.answers = {path: [repeated[path], repeated[path], ended[path]] for path in repeated}
    lines = []
    RunProgress(api, "d", [RUN], tmp_path, lines.append).follow(lambda: None)
    assert len([line for line in lines if "attempt 1 of shard 00000 failed and will be repeated" in line]) == 1


def test_the_number_of_published_documents_comes_from_the_report(api, tmp_path):
    Canned.answers = answers("success", **{"report/xcomEntries/return_value": {"published": 7}})
    assert RunProgress(api, "d", [RUN], tmp_path, print).published(RUN) == 7
    Canned.answers = answers("failed")
    assert RunProgress(api, "d", [RUN], tmp_path, print).published(RUN) == 0


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_up_serves_the_ui_and_leaves_no_process_behind(tmp_path):
    environment = {**os.environ, "CORPUSMILL_HOME": str(tmp_path / "home")}
    started = subprocess.Popen(
        [sys.executable, "-m", "corpusmill_operators.local", "up"],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = []
        for line in started.stdout:
            lines.append(line)
            if "Airflow is ready" in line:
                break
        assert "Airflow is ready" in lines[-1], "".join(lines)
        url = next(word for word in lines[-1].split() if word.startswith("http://127.0.0.1:"))
        health = json.loads(urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=30).read())
        assert health["scheduler"]["status"] == "healthy"
        below = psutil.Process(started.pid).children(recursive=True)
        assert len(below) > 4
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=90) == 130
    finally:
        started.kill()
        started.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(p.is_running() for p in below):
        time.sleep(0.1)
    assert [p for p in below if p.is_running()] == []
