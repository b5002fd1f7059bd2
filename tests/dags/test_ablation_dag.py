"""The real ablation DAG: a killed arm is retried alone, a second run does nothing again, a broken recipe is told."""

import json
import os
import signal
import threading
import time
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.airflow, pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]  # fmt: skip
MIDDLE = "bits_per_byte middle 50% by crawl | trigram | seed 0"


@pytest.fixture
def recipe(tmp_path, repository, monkeypatch):
    """The shipped demo recipe with a shorter training, read in place of the shipped ones."""
    folder = tmp_path / "ablations"
    folder.mkdir()
    values = yaml.safe_load((repository / "dags" / "ablations" / "demo.yaml").read_text())
    values["references"]["crawl"]["steps"] = 10
    values["pool"]["max_documents"] = 40
    values["scores"][0]["which"] = ["middle"]
    (folder / "demo.yaml").write_text(yaml.safe_dump(values))
    (folder / "broken.yaml").write_text("name: broken\npool: {files: []}\n")
    monkeypatch.setenv("CORPUSMILL_ABLATION_RECIPES", str(folder))
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "ablations" / "demo"


@pytest.fixture
def run(airflow_db, load_dags, monkeypatch):
    from corpusmill_operators.retries import RETRY_POLICY

    for rule in RETRY_POLICY.rules:
        if rule.retry_delay is not None:
            monkeypatch.setattr(rule, "retry_delay", timedelta(seconds=1))

    def start():
        made = load_dags()["ablation_demo"].test(logical_date=None)
        return made, made.get_task_instances()

    return start


@pytest.fixture
def kill_once(tmp_path):
    """Kills the first child process that works on a run, once; tells which."""
    killed, stop = [], threading.Event()

    def child_of(label):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
                if "corpusmill.worker" not in words:
                    continue
                arguments = json.loads(Path(words[words.index("corpusmill.worker") + 1]).read_text())["arguments"]
            except (OSError, ValueError):
                continue
            if arguments.get("run") == label and arguments["plan"].startswith(str(tmp_path)):
                return int(process.name)
        return None

    def watch(label):
        while not stop.is_set() and not killed:
            if (pid := child_of(label)) is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(label)
            time.sleep(0.02)

    def start(label):
        thread = threading.Thread(target=watch, args=(label,), daemon=True)
        thread.start()
        return killed

    yield start
    stop.set()


class Page(HTMLParser):
    """Tags and texts of the report, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "line", "rect", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"line", "rect", "circle", "polyline"}:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_a_killed_arm_is_retried_alone_and_a_second_run_repeats_nothing(recipe, run, kill_once):
    from airflow.utils.state import TaskInstanceState

    killed = kill_once(MIDDLE)
    done, tasks = run()
    assert done.state == "success", {(t.task_id, t.map_index): t.state for t in tasks}
    assert killed == [MIDDLE]
    tries = {t.rendered_map_index or t.task_id: t.try_number for t in tasks}
    assert tries.pop(MIDDLE) == 2
    assert set(tries.values()) == {1}
    assert {"crawl", "no pruning | trigram | seed 0", "report"} <= set(tries)

    report = json.loads((recipe / "report.json").read_text())
    assert report["missing"] == []
    assert {row["arm"]["label"] for row in report["rows"]} == {
        label.partition(" | ")[0] for label in [*tries, MIDDLE] if " | " in label
    }
    page = Page()
    page.feed((recipe / "report.html").read_text())
    assert page.open == []
    assert sum(tag == "svg" for tag, _ in page.tags) >= 3
    assert not [tag for tag, attributes in page.tags if "src" in attributes or "href" in attributes]

    before = {path: path.stat().st_mtime_ns for path in recipe.rglob("result.json")}
    next(iter(sorted(before))).unlink()
    again, tasks = run()
    assert again.state == "success"
    assert {t.state for t in tasks} == {TaskInstanceState.SUCCESS}
    after = {path: path.stat().st_mtime_ns for path in recipe.rglob("result.json")}
    assert [path for path in after if after[path] != before[path]] == [min(before)]


def test_the_dag_is_the_chain_and_a_broken_recipe_has_a_page(recipe, load_dags):
    dags = load_dags()
    dag = dags["ablation_demo"]
    assert [t.task_id for t in dag.topological_sort()] == ["prepare", "score", "arms", "train", "report"]
    assert {t.task_id: t.map_index_template for t in dag.tasks if t.is_mapped} == {
        "score": "{{ task.reference }}",
        "train": "{{ task.arm }}",
    }
    assert "exactly one of files and table" in dags["ablation_broken"].doc_md
    for task in dag.tasks:
        assert task.retries == 3
        assert task.execution_timeout is not None
