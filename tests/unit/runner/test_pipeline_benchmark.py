"""What the whole-pipeline benchmark stands on: altered copies of pages, and whose memory is whose."""

import gzip
import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crawls():
    yield load("pipeline_crawls")
    del sys.modules["pipeline_crawls"]


@pytest.fixture(scope="module")
def processes():
    yield load("pipeline_processes")
    del sys.modules["pipeline_processes"]


@pytest.fixture
def page(crawls, tmp_path):
    return crawls.one_page_files(tmp_path / "pages", 1)[0]


def test_an_altered_copy_has_another_id_other_words_and_the_same_length(crawls, page):
    (original,) = crawls.members(page)
    (copy,) = crawls.altered_records(page, 3)
    assert len(copy) == len(original)
    assert b"urn:uuid:00000003-" in copy
    assert b"urn:uuid:00000000-" in original
    same = sum(a == b for a, b in zip(copy.split(), original.split(), strict=True))
    assert 0.7 * len(original.split()) < same < 0.95 * len(original.split())
    for stop_word in (b"The", b"and", b"that", b"of", b"with"):
        assert copy.split().count(stop_word) == original.split().count(stop_word)


def test_copies_differ_from_each_other(crawls, page):
    copies = {bytes(record) for number in range(1, 13) for record in crawls.altered_records(page, number)}
    assert len(copies) == 12


def test_a_file_with_copies_begins_with_the_file(crawls, page, tmp_path):
    (tmp_path / "longer").mkdir()
    longer = crawls.with_copies(page, 3, tmp_path / "longer")
    assert longer.read_bytes().startswith(page.read_bytes())
    assert next(iter(crawls.members(longer))) == gzip.decompress(page.read_bytes())
    assert len(list(crawls.members(longer))) == 3


def test_a_cut_file_is_refused(crawls, page):
    page.write_bytes(page.read_bytes()[:-20])
    with pytest.raises(SystemExit, match="is cut or larger than"):
        list(crawls.members(page))


def test_children_of_spawned_workers_count_as_theirs(processes):
    spawn = "python -c from multiprocessing.spawn import spawn_main"
    tree = [
        processes.Process(1, 0, "python pipeline_ours.py", 10.0),
        processes.Process(2, 1, "python -c from multiprocessing.resource_tracker import main", 1.0),
        processes.Process(3, 1, spawn, 100.0),
        processes.Process(4, 3, "python -m corpusmill.ingest.sandbox", 50.0),
        processes.Process(5, 1, spawn, 120.0),
    ]
    workers, rest = processes.memory_of(tree)
    assert sorted(workers) == [120.0, 150.0]
    assert rest == 11.0


def test_children_of_a_fork_server_are_workers_and_their_children_are_not(processes):
    serve = "python -c from multiprocess.forkserver import main"
    tree = [
        processes.Process(1, 0, "python pipeline_peer.py", 10.0),
        processes.Process(2, 1, serve, 1.0),
        processes.Process(3, 2, serve, 100.0),
        processes.Process(4, 3, serve, 50.0),
        processes.Process(5, 2, serve, 120.0),
    ]
    workers, rest = processes.memory_of(tree)
    assert sorted(workers) == [120.0, 150.0]
    assert rest == 11.0
