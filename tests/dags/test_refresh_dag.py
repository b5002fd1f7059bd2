"""The real DAG of the demo recipe on real crawl files, in one process: `dag.test` runs every task in order."""

import gzip
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

FIRST, SECOND = "MILL-DEMO-2024-10", "MILL-DEMO-2024-33"
REAL = ("CC-DEMO-2024-10", "CC-DEMO-2024-33")
TABLES = ("documents", "duplicates", "document_refinements", "chunk_refinements", "scores", "corpus")

pytestmark = [
    pytest.mark.airflow, pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(1500),
]  # fmt: skip


@pytest.fixture
def bundled_crawls():
    import corpusmill

    return Path(corpusmill.__file__).parent / "demo" / "crawls"


def table(name):
    from corpusmill.runner.open_lakehouse import open_lakehouse

    return open_lakehouse().table(name)


def snapshots():
    """The current snapshot of every table that a run writes, but of the log of runs."""
    names = ["raw.pages", "ops.quarantine", *(f"demo.{name}" for name in TABLES)]
    return {name: table(name).snapshot_id() for name in names}


def corpus_rows(crawl):
    return table("demo.corpus").scan({"crawl": crawl}).sort_by("doc_id").to_pylist()


def logged_runs(crawl):
    return table("ops.runs").scan(None, filter=f"recipe == 'demo' and crawl == '{crawl}'").to_pylist()


def states(run):
    return {(t.task_id, t.map_index): str(t.state) for t in run.get_task_instances()}


@pytest.fixture(scope="module")
def first(airflow_db, load_dags, run_partition, tmp_path_factory):
    """A first run that nothing disturbed: its home, the run, the published rows."""
    from corpusmill.runner import chain

    home = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CORPUSMILL_HOME", str(home))
        chain.initialise(["demo"])
        run = run_partition(load_dags()["corpus_refresh_demo"], FIRST)
        yield home, run, corpus_rows(FIRST) if run.state == "success" else []


def test_a_run_publishes_a_crawl_and_a_second_run_changes_no_table(first, refresh_dag, run_partition, monkeypatch):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    home, run, rows = first
    monkeypatch.setenv("CORPUSMILL_HOME", str(home))
    assert run.state == "success"
    assert run.partition_key == FIRST
    assert set(states(run).values()) == {"success"}
    labels = {t.rendered_map_index for t in run.get_task_instances() if t.task_id == "score"}
    assert labels == {"00000", "00001"}
    n_published = len(rows)
    assert n_published > 0
    assert f"demo/{FIRST}/1" in table("demo.corpus").refs()

    with create_session() as session:
        event = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)).one()
    assert event.partition_key == FIRST
    assert event.extra["published"] == n_published
    assert event.extra["tag"] == f"demo/{FIRST}/1"

    before = snapshots()
    again = run_partition(refresh_dag, FIRST)
    assert again.run_id != run.run_id
    assert again.state == "success"
    assert {task for (task, _), state in states(again).items() if state == "success"} == {"plan", "report"}
    assert snapshots() == before
    assert sorted((r["epoch"], r["state"], r["n_published"]) for r in logged_runs(FIRST)) == [
        (1, "success", n_published),
        (2, "success", n_published),
    ]


class ChildKiller(threading.Thread):
    """Kills the first child process that scores a shard, once it has worked for a while."""

    CPU_SECONDS = 3.0

    def __init__(self):
        super().__init__(daemon=True)
        self.killed = self._ended = False

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self._ended = True
        self.join()

    def run(self):
        while not (self.killed or self._ended):
            for child in psutil.Process().children():
                if self._scores(child) and sum(child.cpu_times()[:2]) > self.CPU_SECONDS:
                    os.killpg(child.pid, signal.SIGKILL)
                    self.killed = True
                    return
            time.sleep(0.05)

    @staticmethod
    def _scores(child):
        try:
            command = child.cmdline()
            return (
                "corpusmill.worker" in command
                and json.loads(Path(command[-1]).read_text())["arguments"]["stage"] == "score"
            )
        except (psutil.Error, OSError, IndexError, ValueError):
            return False


def test_a_killed_shard_is_repeated_and_ends_in_the_same_corpus(first, home, refresh_dag, run_partition, capfd):
    killer = ChildKiller()
    with killer:
        run = run_partition(refresh_dag, FIRST)
    assert killer.killed, "no scoring process came by to be killed"
    assert run.state == "success"
    repeated = [(t.task_id, t.try_number) for t in run.get_task_instances() if t.try_number > 1]
    assert repeated == [("score", 2)]
    assert "ended with signal SIGKILL and no result" in capfd.readouterr().out
    assert corpus_rows(FIRST) == first[2]


def break_one_member(crawls, crawl):
    """Overwrites some bytes of a member in the middle of the crawl's first archive; returns its path in the list."""
    listed = gzip.decompress((crawls / "crawl-data" / crawl / "warc.paths.gz").read_bytes()).decode().split()
    from corpusmill.ingest.gzip_members import gzip_members

    path = crawls / listed[0]
    with path.open("rb") as file:
        sound = [
            (m.offset, m.length) for m in gzip_members(file, lambda head: head.startswith(b"WARC/")) if not m.error
        ]
    offset, length = max(sound[len(sound) // 3 : len(sound) // 2], key=lambda place: place[1])
    with path.open("r+b") as file:
        file.seek(offset + length // 2)
        file.write(b"\xff" * 64)
    return listed[0]


def test_a_corrupt_archive_costs_its_bad_member_only(home, refresh_dag, run_partition, bundled_crawls, tmp_path, capfd):
    damaged = tmp_path / "crawls"
    shutil.copytree(bundled_crawls, damaged)
    before = json.loads((bundled_crawls / "expected.json").read_text())["crawls"][FIRST]["damaged"]
    victim = break_one_member(damaged, FIRST)
    run = run_partition(refresh_dag, FIRST, {"source": str(damaged)})
    log = capfd.readouterr().out
    assert run.state == "success"
    rows = [r for r in table("ops.quarantine").scan(None).to_pylist() if r["reason"] == "ingest.bad_gzip_member"]
    assert len(rows) == len(before) + 1
    assert victim in {r["warc_file"] for r in rows}
    assert all(r["crawl"] == FIRST and r["stage"] == "ingest" and r["message"] for r in rows)
    assert {state for (task, _), state in states(run).items() if task == "ingest"} == {"success"}
    assert "ingest.bad_gzip_member" in log
    assert len(corpus_rows(FIRST)) > 0


def test_a_failed_audit_turns_the_run_red_says_why_and_leaves_readers_data_alone(
    home, refresh_dag, run_partition, capfd
):
    plan = refresh_dag.get_task("plan")
    check = {
        "name": "corpus.enough", "kind": "metric_between", "subject": "branch_rows", "minimum": 1e9,
        "why": "no crawl is that big",
    }  # fmt: skip
    plan.recipe = {**plan.recipe, "validation": {"extra_checks": [check]}}
    run = run_partition(refresh_dag, FIRST)
    assert run.state == "failed"
    ended = states(run)
    assert ended["validate", -1] == "failed"
    assert ended["publish", -1] == "upstream_failed"
    assert ended["report", -1] == "failed"
    tries = {t.task_id: t.try_number for t in run.get_task_instances()}
    assert tries["validate"] == 1, "a failed check is not tried again"
    assert "corpus.enough" in capfd.readouterr().out
    assert corpus_rows(FIRST) == []
    (row,) = logged_runs(FIRST)
    assert row["state"] == "failed"
    assert row["message"].startswith("validate failed: ValidationFailedError:")


def test_both_real_crawls_are_published_and_the_second_loses_its_copies_of_the_first(
    home, refresh_dag, run_partition, shared_crawls
):
    for crawl in REAL:
        run = run_partition(refresh_dag, None, {"crawl": crawl, "source": str(shared_crawls)})
        assert run.state == "success"
        assert len(corpus_rows(crawl)) > 0
    duplicates = table("demo.duplicates").scan({"crawl": REAL[1]}).to_pylist()
    across = [row for row in duplicates if row["duplicate_of_crawl"] == REAL[0]]
    assert across
    assert not any(row["kept"] for row in across)


def test_a_run_without_a_crawl_is_refused_with_what_to_do(home, refresh_dag, run_partition, capfd):
    run = run_partition(refresh_dag, None)
    assert run.state == "failed"
    assert states(run)["plan", -1] == "failed"
    assert "start it with a partition key or with the parameter 'crawl'" in capfd.readouterr().out
