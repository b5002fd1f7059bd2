"""The DAG of a recipe with near deduplication: its bands are joined by mapped tasks, with the tables of one process."""

import importlib.util
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
OLD, NEW = "T-2024-10", "T-2024-20"
JOIN = ["commit_documents", "index_bands", "join_bands", "deduplicate"]
BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
TABLES = ("documents", "minhash", "duplicates", "corpus")

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def test_bands_are_mapped_tasks_where_near_deduplication_is_on_and_only_there(load_dags):
    dags = load_dags()
    dag, without = dags["corpus_refresh_pruning_paper"], dags["corpus_refresh_demo"]
    for before, after in pairwise(JOIN):
        assert dag.get_task(before).downstream_task_ids == {after}
    assert dag.get_task("join_bands").is_mapped
    assert dag.get_task("join_bands").map_index_template == "{{ task.part }}"
    assert not {"index_bands", "join_bands"} & set(without.task_ids)


@pytest.fixture
def crawls(tmp_path):
    """Two crawls with pages that are alike, inside each and across."""
    place = REPOSITORY / "tests" / "integration" / "test_near_duplicates.py"
    spec = importlib.util.spec_from_file_location("near_crawls", place)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text, other = made.sentences(1), made.sentences(2)
    alike = [[*text[:-1], made.sentences(3 + i)[0]] for i in range(4)]
    for crawl, texts in ((OLD, [text, alike[0], other]), (NEW, [*alike[1:], made.sentences(9), other])):
        pages = {f"https://a.example/{crawl}/{n}": page for n, page in enumerate(texts)}
        made.write_crawl(tmp_path / "crawls", crawl, [pages])
    released = [{"id": NEW, "released": "2024-05-20"}, {"id": OLD, "released": "2024-03-10"}]
    (tmp_path / "crawls" / "collinfo.json").write_text(json.dumps(released))
    return tmp_path / "crawls"


@pytest.fixture
def recipe(crawls):
    return {
        "name": "joined",
        "source": {"base": str(crawls)},
        "shards": {"max_shards": 3},
        "rules": {"preset": "none", "languages": None},
        "deduplication": {"near": {"threshold": 0.5}},
    }


@pytest.fixture
def dag(airflow_db, load_dags, short_pauses, recipe, tmp_path, monkeypatch):
    """The refresh DAG of the recipe, in a bundle of its own, so that Airflow can store it."""
    (tmp_path / "dags" / "recipes").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dags" / "corpus_refresh.py", tmp_path / "dags")
    (tmp_path / "dags" / "recipes" / "joined.yaml").write_text(yaml.safe_dump(recipe))
    bundles = json.loads(os.environ[BUNDLES])
    own = {**bundles[0], "name": "near-duplicates", "kwargs": {"path": str(tmp_path / "dags")}}
    monkeypatch.setenv(BUNDLES, json.dumps([own, *bundles]))
    made = load_dags(tmp_path / "dags")["corpus_refresh_joined"]
    assert made.task_ids, made.doc_md
    return made


def tables():
    """The rows of each table, without what names the run."""
    from corpusmill.runner.open_lakehouse import open_lakehouse

    lake, found = open_lakehouse(), {}
    for name in TABLES:
        table = lake.table(f"joined.{name}")
        rows = table.scan(None)
        by = [(c, "ascending") for c in ("crawl", "band", "key", "doc_id") if c in rows.column_names]
        found[name] = rows.sort_by(by), [table.partition_key({"crawl": crawl}) for crawl in (OLD, NEW)]
    return found


@pytest.mark.slow
@pytest.mark.integration
def test_a_part_that_failed_is_repeated_alone_and_the_tables_are_those_of_one_process(
    dag, recipe, tmp_path, monkeypatch
):
    from corpusmill.dedup.shuffles import EmbeddedShuffles
    from corpusmill.errors import DiskFullError
    from corpusmill.recipe import parse_recipe
    from corpusmill.runner import chain
    from corpusmill.runner.pair_files import PairFiles
    from corpusmill.runner.refresh import refresh

    joined, real_pairs, real_write = [], EmbeddedShuffles.pairs, PairFiles.write

    def pairs(self, source, wanted, target, part=None):
        joined.append(part and part.name)
        return real_pairs(self, source, wanted, target, part)

    def write(self, target, part, codes):
        real_write(self, target, part, codes)
        if part.first > 0 and joined.count(part.name) == 1:
            raise DiskFullError("the disk of the worker was full for a moment")

    monkeypatch.setattr(EmbeddedShuffles, "pairs", pairs)
    monkeypatch.setattr(PairFiles, "write", write)
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "chain"))
    chain.initialise(["joined"])
    parts = ["bands-000-003", "bands-004-008", "bands-009-013"]
    for crawl, own in ((OLD, 1), (NEW, 2)):
        joined.clear()
        run = dag.test(logical_date=None, run_conf={"crawl": crawl})
        assert run.state == "success"
        instances = {t.map_index: t for t in run.get_task_instances() if t.task_id == "join_bands"}
        assert [instances[i].rendered_map_index for i in range(3)] == parts
        # what a part had stored of one crawl when it failed, its second attempt leaves
        assert [instances[i].try_number for i in range(3)] == [1, 2, 2]
        assert sorted(joined) == [name for name in parts for _ in range(own)], "deduplicate joined it again"
    assert not list((tmp_path / "chain").rglob("bands-*.parquet"))

    found = tables()
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "one process"))
    for crawl in (OLD, NEW):
        refresh(parse_recipe(recipe), crawl, None, str)
    expected = tables()
    for name in TABLES:
        assert found[name][0].equals(expected[name][0]), name
        assert found[name][1] == expected[name][1], name
    rows = expected["duplicates"][0].to_pylist()
    near = {row["duplicate_of_crawl"] for row in rows if row["kind"] == "near" and row["crawl"] == NEW}
    assert near == {OLD}
