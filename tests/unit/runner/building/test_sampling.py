"""Seed documents: the same sample for any order, nested in size, with clear errors; from files, tables and crawls."""

import gzip
import json
import random

import pytest

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.prox.seed_document import SeedDocument
from corpusmill.refiner_recipe import SeedConfig, parse_refiner_recipe
from corpusmill.runner import chain
from corpusmill.runner.building.plan import SEEDS_TABLE, plan_build
from corpusmill.runner.building.sampling import candidates, sample, sample_seed, seed_of_shard
from corpusmill.runner.open_lakehouse import open_lakehouse


def say(_line):
    pass


def recipe(seed, **changes):
    values = {"name": "lines", "seed": seed, "labels": {"route": "gold"}, "train": {"kind": "labeller", "steps": 1}}
    return parse_refiner_recipe(values | changes)


def seed(**values):
    return SeedConfig.load({"files": ["x"], "min_characters": 1, **values})


DOCUMENTS = [SeedDocument(doc_id=f"d{i}", text=f"text number {i}") for i in range(200)]


def test_a_sample_does_not_depend_on_order_and_a_larger_one_holds_the_smaller():
    small = sample(iter(DOCUMENTS), seed(n_documents=20))
    shuffled = DOCUMENTS[:]
    random.Random(1).shuffle(shuffled)
    assert sample(iter(shuffled), seed(n_documents=20)) == small
    assert len(small) == 20
    large = sample(iter(DOCUMENTS), seed(n_documents=50))
    assert {d.doc_id for d in small} < {d.doc_id for d in large}
    assert sample(iter(DOCUMENTS), seed(n_documents=20, seed=1)) != small


def test_documents_that_are_too_short_or_long_or_twice_there_are_not_sampled():
    documents = [
        SeedDocument(doc_id="a", text="12345"),
        SeedDocument(doc_id="a", text="54321"),
        SeedDocument(doc_id="b", text="1"),
        SeedDocument(doc_id="c", text="1" * 99),
    ]
    taken = sample(iter(documents), seed(min_characters=2, max_characters=10))
    assert [d.text for d in taken] == ["12345"]


@pytest.fixture
def lake(home):
    chain.initialise(["demo"])
    return open_lakehouse()


@pytest.fixture
def pages(tmp_path):
    path = tmp_path / "pages.jsonl.gz"
    rows = [{"doc_id": f"p{i}", "lines": ["Home", f"A sentence, number {i}."], "remove": [0]} for i in range(9)]
    rows.append({"text": "a plain document\nof two lines", "meta": {"url": "https://blog.example.co.uk/x"}})
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_a_sample_is_committed_once_and_read_by_shard(lake, pages):
    source = {"files": [str(pages.parent / "*.jsonl.gz")], "min_characters": 1, "max_shards": 3}
    plan = plan_build(lake, recipe(source), "run-1")
    made = sample_seed(lake, plan, say)
    assert (made["documents"], made["shards"]) == (10, ["00000", "00001", "00002"])
    snapshot = lake.table(SEEDS_TABLE).snapshot_id()
    again = plan_build(lake, recipe(source), "run-2")
    assert (again.build, again.epoch) == (plan.build, plan.epoch + 1)
    assert sample_seed(lake, again, say) == made
    assert lake.table(SEEDS_TABLE).snapshot_id() == snapshot
    documents = [d for shard in made["shards"] for d in seed_of_shard(lake, plan, shard)]
    assert len(documents) == 10
    by_id = {d.doc_id: d for d in documents}
    assert by_id["p3"].remove == (0,)
    assert by_id["p3"].text == "Home\nA sentence, number 3."
    plain = next(d for d in documents if d.remove is None)
    assert plain.domain == "example.co.uk"
    assert plain.source == "pages.jsonl.gz"


def test_other_content_is_another_build_and_the_number_of_shards_is_not(lake, pages):
    first = plan_build(lake, recipe({"files": [str(pages)]}), "r").build
    assert plan_build(lake, recipe({"files": [str(pages)], "max_shards": 1}), "r").build == first
    assert plan_build(lake, recipe({"files": [str(pages)]}, gate={"keep_f1": 0.5}), "r").build == first
    assert plan_build(lake, recipe({"files": [str(pages)], "n_documents": 3}), "r").build != first
    with gzip.open(pages, "at") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    assert plan_build(lake, recipe({"files": [str(pages)]}), "r").build != first


def test_bad_sources_are_named(lake, pages, tmp_path):
    with pytest.raises(ConfigError, match="names no file"):
        plan_build(lake, recipe({"files": [str(tmp_path / "none*.jsonl")]}), "r")
    with pytest.raises(ConfigError, match="no rows of partition='X'"):
        plan_build(lake, recipe({"table": "demo.documents", "partition": "X"}), "r")
    with pytest.raises(ConfigError, match="exactly one of table, files and crawl"):
        recipe({"table": "demo.documents", "files": [str(pages)]})
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"lines": ["a"], "remove": [4]}\n')
    with pytest.raises(PermanentDataError, match=r"bad\.jsonl line 2: .*beyond the 1"):
        list(candidates(lake, seed(files=[str(bad)]), "", say))
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "tiny"}\n')
    with pytest.raises(PermanentDataError, match="holds 0 documents"):
        sample_seed(lake, plan_build(lake, recipe({"files": [str(short)]}), "r"), say)


def test_a_crawl_is_sampled_with_its_html_under_the_ids_of_the_pages(lake):
    config = SeedConfig.load({"crawl": "MILL-DEMO-2024-10", "n_documents": 5})
    taken = sample(candidates(lake, config, "", say), config)
    assert len(taken) == 5
    assert all("<" in (d.html or "") and d.domain for d in taken)
    assert taken == sample(candidates(lake, config, "", say), config)
