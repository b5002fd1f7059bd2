"""Annotation against a real chat server: answers are stored as they come, kills lose nothing that was answered."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from corpusmill.errors import ConfigError, PermanentDataError, TransientDataError
from corpusmill.prox.annotation_config import AnnotationConfig, TeacherConfig
from corpusmill.prox.annotation_prompts import requests_of
from corpusmill.prox.annotator import Answer, load_teacher
from corpusmill.prox.answer_store import AnswerStore, StoredAnswer, read_answers
from corpusmill.prox.seed_annotation import annotate
from corpusmill.prox.seed_document import SeedDocument, write_seed_documents

TEACHER = Path(__file__).resolve().parents[2] / "servers" / "scripted_teacher.py"
CONFIG = AnnotationConfig()


def documents(n):
    return [
        SeedDocument(doc_id=f"d{k}", text=f"Home\nThe survey of year {k} counted herons.\n(c) {k}") for k in range(n)
    ]


def set_faults(url, faults):
    body = json.dumps(faults).encode()
    request = urllib.request.Request(url.replace("/v1", "/admin/faults"), body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()


def asked(url):
    with urllib.request.urlopen(url.replace("/v1", "/admin/requests")) as response:
        return [row["body"]["messages"][0]["content"] for row in json.load(response)]


@pytest.fixture(scope="module")
def url(completions_server):
    return completions_server("--script", TEACHER, "--name", "big")


@pytest.fixture
def teacher(url):
    set_faults(url, [])
    made = load_teacher(
        TeacherConfig(model="big", endpoint=url, max_concurrency=3, prompt_price=2.0, completion_price=10.0)
    )
    yield made
    made.close()
    set_faults(url, [])


def test_a_second_run_asks_nothing_and_costs_nothing_more(url, teacher, tmp_path):
    lines = []
    with AnswerStore(tmp_path / "shard" / "answers.jsonl") as store:
        first = annotate(documents(60), "scores", teacher, store, CONFIG, lines.append, prices=teacher.config)
        again = annotate(documents(60), "scores", teacher, store, CONFIG, prices=teacher.config)
    assert (first.n_documents, first.n_requests, first.n_asked, first.n_reused) == (60, 120, 120, 0)
    assert (again.n_asked, again.n_reused, again.cost) == (0, 120, first.cost)
    assert first.cost == pytest.approx((2 * first.prompt_tokens + 10 * first.completion_tokens) / 1e6)
    assert first.prompt_tokens > 1000
    assert len(asked(url)) == 120
    assert len(lines) == 1
    with AnswerStore(tmp_path / "shard" / "answers.jsonl") as store:
        more = annotate(documents(61), "scores", teacher, store, CONFIG)
    assert (more.n_asked, more.n_reused) == (2, 120)


def test_routes_without_questions_need_no_teacher(tmp_path):
    with AnswerStore(tmp_path / "a.jsonl") as store:
        report = annotate(documents(3), "gold", None, store, CONFIG)
        assert (report.n_documents, report.n_requests, report.cost) == (3, 0, None)
        with pytest.raises(ConfigError, match="asks a teacher"):
            annotate(documents(3), "rewrite", None, store, CONFIG)


def test_empty_and_huge_documents_are_not_asked_about(teacher, tmp_path):
    config = AnnotationConfig(window_characters=500, max_document_characters=2000)
    odd = [
        SeedDocument(doc_id="empty", text=" \n"),
        SeedDocument(doc_id="huge", text="a " * 1500),
        SeedDocument(doc_id="one line", text="a" * 1500),
        SeedDocument(doc_id="windows", text="a survey line\n" * 100),
    ]
    with AnswerStore(tmp_path / "a.jsonl") as store:
        report = annotate(odd, "rewrite", teacher, store, config)
        assert {row.doc_id for row in store.answers()} == {"windows"}
    assert report.n_unasked == 3
    windows = requests_of(odd[3], "rewrite", config)
    assert [request.window.first_line for request in windows] == [0, 25, 50, 75]
    assert report.n_requests == 1, "equal windows are one question"


KILLED = """
import os, sys
from corpusmill.prox.annotation_config import AnnotationConfig, TeacherConfig
from corpusmill.prox.annotator import load_teacher
from corpusmill.prox.answer_store import AnswerStore
from corpusmill.prox.seed_annotation import annotate
from corpusmill.prox.seed_document import read_seed_documents
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
teacher = load_teacher(TeacherConfig(model="big", endpoint=url, max_concurrency=2))
with AnswerStore(folder / "answers.jsonl") as store:
    print("ready", flush=True)
    annotate(read_seed_documents(folder / "seed.jsonl"), "rewrite", teacher, store, AnnotationConfig())
"""


def test_a_killed_process_loses_only_what_was_in_flight(url, teacher, tmp_path):
    write_seed_documents(tmp_path / "seed.jsonl", documents(30))
    set_faults(url, [{"kind": "delay", "seconds": 60, "after": 12}])  # what comes behind twelve answers hangs
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "ready\n"
    path = tmp_path / "answers.jsonl"
    while path.read_bytes().count(b"\n") < 12 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    first = asked(url)
    set_faults(url, [])
    assert len(read_answers([path])) == 12
    path.write_bytes(path.read_bytes() + b'{"key": "cut in the mid')  # and a writer that was cut in a row
    with AnswerStore(path) as store:
        assert store.n_damaged == 1
        report = annotate(documents(30), "rewrite", teacher, store, CONFIG)
    assert (report.n_reused, report.n_asked) == (12, 18)
    second = asked(url)
    assert len(set(first + second)) == 30
    assert len(second) == 18
    assert len(set(first) & set(second)) <= 2, "asked twice is only what two threads had in flight"
    assert len(read_answers([path])) == 30


def test_failures_for_good_are_rows_and_are_asked_again_only_on_demand(url, teacher, tmp_path):
    set_faults(url, [{"kind": "status", "status": 400, "pattern": "year 7 "}])
    config = AnnotationConfig(max_error_fraction=0.2)
    with AnswerStore(tmp_path / "a.jsonl") as store:
        report = annotate(documents(10), "rewrite", teacher, store, config)
        assert report.n_failed == 1
        (failed,) = [row for row in store.answers() if row.error]
        assert failed.doc_id == "d7"
        set_faults(url, [])
        again = annotate(documents(10), "rewrite", teacher, store, config)
        assert (again.n_asked, again.n_failed) == (0, 1)
        with pytest.raises(PermanentDataError, match="1 of 10 questions failed"):
            annotate(documents(10), "rewrite", teacher, store, CONFIG)
        mended = annotate(documents(10), "rewrite", teacher, store, config.model_copy(update={"retry_failed": True}))
        assert (mended.n_asked, mended.n_failed) == (1, 0)
    assert not any(row.error for row in read_answers([tmp_path / "a.jsonl"]))


def test_a_teacher_that_fails_everything_is_not_asked_everything(url, teacher, tmp_path):
    set_faults(url, [{"kind": "status", "status": 400}])
    with AnswerStore(tmp_path / "a.jsonl") as store, pytest.raises(PermanentDataError, match="failed for good"):
        annotate(documents(200), "rewrite", teacher, store, CONFIG)
    assert len(read_answers([tmp_path / "a.jsonl"])) < 30


def test_a_server_that_goes_away_ends_the_run_and_keeps_its_answers(completions_server, tmp_path, monkeypatch):
    url = completions_server("--script", TEACHER, "--name", "mortal")
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_MORTAL", url)
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_MORTAL_MAX_RETRIES", "0")
    set_faults(url, [{"kind": "die", "after": 6}])
    teacher = load_teacher(TeacherConfig(model="mortal", endpoint="mortal", max_concurrency=1))
    with AnswerStore(tmp_path / "a.jsonl") as store, pytest.raises(TransientDataError):
        annotate(documents(20), "rewrite", teacher, store, CONFIG)
    teacher.close()
    assert len(read_answers([tmp_path / "a.jsonl"])) == 6
    assert not any(row.error for row in read_answers([tmp_path / "a.jsonl"]))


def test_a_wrong_key_or_model_is_no_answer(completions_server, tmp_path):
    url = completions_server("--script", TEACHER, "--name", "big", "--key", "right")
    teacher = load_teacher(TeacherConfig(model="big", endpoint=url))
    with AnswerStore(tmp_path / "a.jsonl") as store, pytest.raises(ConfigError):
        annotate(documents(5), "rewrite", teacher, store, CONFIG)
    teacher.close()
    assert len(read_answers([tmp_path / "a.jsonl"])) == 0


class Canned:
    """A teacher with given answers."""

    name, batch_requests, concurrency, n_retries = "canned", 4, 1, 0

    def __init__(self, text):
        self.text = text

    def ask(self, conversations):
        return [Answer(self.text) for _ in conversations]

    def close(self):
        pass


def test_an_endless_answer_is_a_failure_and_is_not_stored(tmp_path):
    with AnswerStore(tmp_path / "a.jsonl") as store:
        report = annotate(
            documents(4), "rewrite", Canned("x" * 1_000_001), store, AnnotationConfig(max_error_fraction=1.0)
        )
    assert report.n_failed == 4
    assert (tmp_path / "a.jsonl").stat().st_size < 10_000


def test_stores_read_damaged_lines_and_any_text(tmp_path):
    path = tmp_path / "a.jsonl"
    row = StoredAnswer("k1", "t", "v", "d", "rewrite", text="a\nb \ud800 \u2028")
    with AnswerStore(path) as store:
        store.append(row)
        assert store.get("k1") == row
    path.write_bytes(b'\xff\xfe\n[1]\n{"key": 1, "other": 2}\n' + path.read_bytes() + b'{"key"')
    answers = read_answers([path])
    assert answers.get("k1") == row
    assert len(answers) == 1
    with AnswerStore(path) as store:
        assert store.n_damaged == 4
        store.append(StoredAnswer("k2", "t", "v", "d", "rewrite"))
    assert {answer.key for answer in read_answers([path])} == {"k1", "k2"}


def test_keys_tell_teachers_prompts_and_texts_apart():
    (one, *_), (other, *_) = (requests_of(document, "programs", CONFIG) for document in documents(2))
    keys = {one.key("v", "t"), one.key("v", "u"), one.key("w", "t"), other.key("v", "t")}
    assert len(keys) == 4
    assert one.key("v", "t") == requests_of(documents(1)[0], "programs", CONFIG)[0].key("v", "t")


@pytest.mark.parametrize("values", [{"model": "m"}, {"model": "m", "kind": "local", "prompt_price": -1}])
def test_settings_without_an_endpoint_or_with_a_wrong_price_are_refused(values):
    with pytest.raises(ConfigError):
        TeacherConfig.load(values)
