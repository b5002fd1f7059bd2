"""Every row of the table in ``docs/how-to/failures.md``, provoked by a real run: its state, its texts, its report."""

import http.server
import importlib.util
import shutil
import socket
import sqlite3
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("failing_runs", Path(__file__).parent / "failing_runs.py")
failing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(failing)
PAGE = REPOSITORY / "docs" / "how-to" / "failures.md"

pytestmark = [
    pytest.mark.airflow, pytest.mark.integration, pytest.mark.slow, pytest.mark.filterwarnings("default"),
]  # fmt: skip


def rows():
    """The rows of the table: what happened -> (texts of the first line, state)."""
    table = PAGE.read_text().partition("## What you see")[2].partition("\n## ")[0]
    cells = [line.split("|") for line in table.splitlines() if line.startswith("|")][2:]
    return {row[1].strip(): (row[2].strip().strip("`").split("` `"), row[3].strip()) for row in cells}


@pytest.fixture
def failing_run(home, refresh_dag, run_partition, tmp_path, monkeypatch):
    """Runs the demo's DAG on a small crawl with a small recipe; a task is tried twice at most, without long pauses."""
    from corpusmill.ingest.backoff import FetchPolicy

    monkeypatch.setattr(FetchPolicy, "delay", lambda *_: 0.0)

    def run(source=None, crawl=failing.CRAWL, before=(), **recipe):
        refresh_dag.get_task("plan").recipe = {**failing.RECIPE, **recipe}
        hooks = dict([before] if before else [])
        for task in refresh_dag.tasks:
            settings = {"retries": 1, "retry_delay": timedelta(seconds=0.1)}
            if task.task_id in hooks:
                settings["pre_execute" if task.is_mapped else "_pre_execute_hook"] = hooks[task.task_id]
            if task.is_mapped:
                task.partial_kwargs.update(settings)
            else:
                vars(task).update(settings)
        base = source or str(failing.write_crawl(tmp_path / "crawls"))
        return run_partition(refresh_dag, None, {"crawl": crawl, "source": base})

    return run


def check(title, run, task):
    """Compares a run with its row: the task's state and attempts, the texts, and the message that the report holds."""
    texts, state = rows()[title]
    assert run.state == "failed"
    assert {s for (name, _), s in failing.states(run).items() if name == task} == {"failed"}
    assert failing.states(run).get(("report", -1), "failed") == "failed"
    first = failing.left_message(run, task)[0]
    assert [text for text in texts if text not in first] == [], first
    assert state in ("failed", "up_for_retry")
    assert failing.attempts(run, task) == (1 if state == "failed" else 2), "a permanent error is not tried again"
    assert ("[permanent: " if state == "failed" else "[may pass: attempt 2 of 2") in first
    return first


def check_report(run, task, first):
    """The run's row in ``ops.runs``, which the UI shows, carries the task and its first line."""
    message = failing.reported(run)["message"]
    assert message.splitlines()[0].startswith(f"{task} failed: {first}")


def test_every_row_of_the_table_has_its_test():
    source = Path(__file__).read_text()
    assert len(rows()) >= 15
    assert [title for title in rows() if f'check("{title}"' not in source] == []


def test_a_shard_of_damaged_archives(failing_run, tmp_path):
    base = failing.write_crawl(tmp_path / "damaged")
    failing.damage(base)
    run = failing_run(str(base))
    check_report(run, "ingest[0]", check("A shard holds too many bad inputs", run, "ingest"))


def test_a_failed_check(failing_run):
    run = failing_run(validation={"extra_checks": [failing.UNREACHABLE_CHECK]})
    first = check("A check failed", run, "validate")
    assert "corpus.enough" in first
    check_report(run, "validate", first)


def test_a_killed_child_process(failing_run):
    refiner = {"backend": "labeller", "model": "bundled:line_labeller"}
    with failing.ChildKiller() as killer:
        run = failing_run(refine_documents=refiner)
    assert killer.killed == 2
    check_report(run, "refine_documents[0]", check("A child process was killed", run, "refine_documents"))


def test_a_gpu_without_memory(airflow_db, load_dags, short_pauses, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path))
    monkeypatch.setenv("CORPUSMILL_DEVICES", "7")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    run = load_dags(Path(__file__).parent / "foreign")["gpu_fault"].test(logical_date=None)
    first = check("A GPU failed", run, "work")
    assert "device 7" in first


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_refuses(failing_run):
    run = failing_run(f"http://127.0.0.1:{free_port()}")
    check("The crawl's server refuses connections", run, "plan")


class Busy(http.server.BaseHTTPRequestHandler):
    """Answers everything with 503."""

    def do_GET(self):
        self.send_response(503)
        self.send_header("Retry-After", "120")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_busy_server(failing_run):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run = failing_run(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    check("The crawl's server is busy", run, "plan")


def test_a_server_without_an_address(failing_run):
    run = failing_run("http://crawls.invalid")
    check("The crawl's server has no address", run, "plan")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(small_disk, failing_run, monkeypatch):
    from corpusmill.runner import chain

    monkeypatch.setenv("CORPUSMILL_HOME", str(small_disk))
    chain.initialise(["demo"])

    def fill(_context):
        with (small_disk / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                return

    run = failing_run(before=("ingest", fill))
    first = check("A disk is full", run, "ingest")
    assert f"home '{small_disk}' has 0 of 24 MiB free" in first


def test_a_lost_catalog(failing_run, home, capfd):
    run = failing_run(before=("plan", lambda _: (home / "catalog.db").unlink()))
    first = check("The catalog's file is gone", run, "plan")
    assert f"plan failed: {first}" in capfd.readouterr().out


def test_a_catalog_lost_in_the_middle_of_a_run_is_still_named_by_the_report(failing_run, home, capfd):
    run = failing_run(before=("commit_pages", lambda _: (home / "catalog.db").unlink()))
    assert failing.states(run)["commit_pages", -1] == failing.states(run)["report", -1] == "failed"
    (first, *_) = failing.left_message(run, "commit_pages")
    assert "there is no catalog" in first
    assert capfd.readouterr().out.count(f"commit_pages failed: {first}") >= 2, "by the task and by report"


def test_a_damaged_catalog(failing_run, home):
    run = failing_run(before=("plan", lambda _: (home / "catalog.db").write_bytes(b"not a database at all" * 500)))
    check("The catalog is damaged", run, "plan")


def test_a_locked_catalog(failing_run, home, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_CATALOG_URI", f"sqlite:///{home}/catalog.db?timeout=0.1")
    holder = sqlite3.connect(home / "catalog.db", isolation_level=None, check_same_thread=False)
    try:
        run = failing_run(before=("plan", lambda _: holder.in_transaction or holder.execute("BEGIN EXCLUSIVE")))
    finally:
        holder.close()
    check("The catalog is locked", run, "plan")


def test_a_stopped_catalog_server(failing_run, monkeypatch):
    pytest.importorskip("psycopg2")
    monkeypatch.setenv("CORPUSMILL_CATALOG_URI", f"postgresql://mill:secret@127.0.0.1:{free_port()}/lake")
    first = check("The catalog's server is stopped", failing_run(), "plan")
    assert "secret" not in first


def test_a_damaged_model(failing_run, tmp_path):
    import corpusmill

    model = tmp_path / "model"
    shutil.copytree(Path(corpusmill.__file__).parent / "demo" / "models" / "line_labeller", model)
    with (model / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    run = failing_run(refine_documents={"backend": "labeller", "model": str(model)})
    check_report(run, "refine_documents[0]", check("A model is damaged", run, "refine_documents"))


def test_a_superseded_run(failing_run, tmp_path):
    from corpusmill.runner import chain

    base = failing.write_crawl(tmp_path / "base")
    newer = ("commit_pages", lambda _: chain.plan(failing.RECIPE, failing.CRAWL, "the-newer-run", str(base)))
    run = failing_run(str(base), before=newer)
    first = check("A newer run took over", run, "commit_pages")
    assert "the-newer-run" in first
    check_report(run, "commit_pages", first)


def check_unplanned(run, first):
    """A run that failed in ``plan`` has no row in ``ops.runs``; the UI finds its message all the same."""
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.unplanned_runs import why_unplanned

    assert failing.reported(run) is None
    said = why_unplanned(open_lakehouse(), run.dag_id, run.run_id)
    assert said.splitlines()[0] == f"plan failed: {first}"


def test_an_unknown_crawl(failing_run):
    run = failing_run(crawl="T-2099-01")
    check_unplanned(run, check("A crawl that does not exist", run, "plan"))


def test_a_run_without_a_crawl(failing_run):
    run = failing_run(crawl=None)
    check_unplanned(run, check("A run without a crawl", run, "plan"))


def test_a_missing_connection(failing_run):
    refiner = {"backend": "completions", "model": "nobody/none", "revision": "0" * 40, "endpoint": "large_model"}
    run = failing_run(refine_documents=refiner)
    check_report(run, "refine_documents[0]", check("A connection is missing", run, "refine_documents"))


def test_a_model_hub_that_does_not_answer(failing_run, monkeypatch):
    pytest.importorskip("huggingface_hub")
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    run = failing_run(refine_documents={"backend": "transformers", "model": "nobody/none"})
    check("The model hub does not answer", run, "plan")
