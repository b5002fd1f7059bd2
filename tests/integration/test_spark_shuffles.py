"""Deduplication on Spark through whole runs: the tables, pairs and clusters of the engine in the process."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyspark")
pytest.importorskip("numba")

from corpusmill.dedup.candidates import LOWEST, JoinPart
from corpusmill.dedup.shuffles import EmbeddedShuffles
from corpusmill.dedup.spark_master import VARIABLE
from corpusmill.recipe import parse_recipe
from corpusmill.runner import chain
from corpusmill.runner.near_duplicates import indexes_of
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import load_plan
from corpusmill.runner.refresh import refresh
from corpusmill.runner.spark_shuffles import SparkShuffles, open_shuffles

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a minute of work, on a machine that may do twenty other things
    pytest.mark.filterwarnings("ignore"),  # pyspark warns of pandas 3, which it is not given
    pytest.mark.skipif(not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="Spark needs Java"),
]

_spec = importlib.util.spec_from_file_location("near_crawls", Path(__file__).with_name("test_near_duplicates.py"))
crawls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crawls)
OLD, NEW = "T-2024-10", "T-2024-20"
TABLES = ("documents", "minhash", "duplicates", "corpus")
N_ALIKE = LOWEST + 4


def alike(seed, n):
    """Texts of one template: each differs from the others in its last sentence."""
    text = crawls.sentences(seed)
    return [[*text[:-1], crawls.sentences(seed + 1_000 + i)[0]] for i in range(n)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two crawls: more pages of one template than are compared, pages that stand in both, chains, and own ones."""
    folder = tmp_path_factory.mktemp("crawls")
    template, both = alike(1, N_ALIKE + 2), alike(2, 4)
    chain_of_texts = [crawls.sentences(3)]
    for i in range(3):
        other = crawls.sentences(4 + i)
        chain_of_texts.append(
            [*chain_of_texts[-1][:24], *other[24:]] if i % 2 else [*other[:5], *chain_of_texts[-1][5:]]
        )
    pages = {OLD: [*template[:N_ALIKE], *both[:2], *chain_of_texts[:2], crawls.sentences(20)]}
    pages[NEW] = [*template[N_ALIKE:], *both[2:], both[0], *chain_of_texts[2:], crawls.sentences(21)]
    for crawl, texts in pages.items():
        crawls.write_crawl(folder, crawl, [{f"https://a.example/{crawl}/{n}": text for n, text in enumerate(texts)}])
    return folder


def recipe_of(base):
    return parse_recipe(
        {
            "name": "spark",
            "source": {"base": str(base)},
            "shards": {"max_shards": 2},
            "rules": {"preset": "none", "languages": None},
            "deduplication": {"near": {"threshold": 0.5}},
        }
    )


def refreshed(base, home, monkeypatch, master):
    """Runs both crawls in an empty home; returns rows and content keys of each table."""
    monkeypatch.setenv("CORPUSMILL_HOME", str(home))
    if master:
        monkeypatch.setenv(VARIABLE, master)
    else:
        monkeypatch.delenv(VARIABLE, raising=False)
    for crawl in (OLD, NEW):
        refresh(recipe_of(base), crawl, None, str)
    lake, found = open_lakehouse(), {}
    for name in TABLES:
        table = lake.table(f"spark.{name}")
        rows = table.scan(None)
        by = [(c, "ascending") for c in ("crawl", "band", "key", "doc_id") if c in rows.column_names]
        found[name] = rows.sort_by(by), [table.partition_key({"crawl": crawl}) for crawl in (OLD, NEW)]
    return found


@pytest.fixture
def quick_spark(tmp_path, monkeypatch):
    """A Spark for a few rows, which starts sooner and does not cut them into 200 parts."""
    (tmp_path / "spark").mkdir()
    settings = {
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",  # compiling costs more than it saves here
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.local.dir": str(tmp_path / "spark"),
    }
    text = "\n".join(f"{name} {value}" for name, value in settings.items())
    (tmp_path / "spark" / "spark-defaults.conf").write_text(text)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "spark"))


def test_runs_on_spark_end_in_equal_tables_with_equal_keys(base, tmp_path, monkeypatch, quick_spark):
    embedded = refreshed(base, tmp_path / "embedded", monkeypatch, None)
    used = []
    for name in ("pairs", "roots"):
        real = getattr(SparkShuffles, name)

        def seen(self, *arguments, real=real, name=name):
            used.append(name)
            return real(self, *arguments)

        monkeypatch.setattr(SparkShuffles, name, seen)
    spark = refreshed(base, tmp_path / "spark home", monkeypatch, "local[2]")
    assert used == ["pairs", "roots", "pairs", "pairs", "roots"]
    for name in TABLES:
        assert spark[name][0].equals(embedded[name][0]), name
        assert spark[name][1] == embedded[name][1], name
    duplicates = embedded["duplicates"][0].to_pylist()
    assert sum(not row["kept"] for row in duplicates) >= N_ALIKE
    assert {row["duplicate_of_crawl"] for row in duplicates if row["crawl"] == NEW} == {OLD, NEW}
    assert {row["kind"] for row in duplicates} == {"exact", "near"}
    assert not list((tmp_path / "spark home").rglob("*band_pairs*/*")), "scratch files are left"

    plan = chain.plan(recipe_of(base).model_dump(mode="json"), NEW, "again")["plan"]
    lake = open_lakehouse()
    indexes = indexes_of(lake, load_plan(lake, plan), recipe_of(base).deduplication.near)
    with open_shuffles(lake, f"{lake.settings.warehouse}/_runs/scratch", 14) as engine:
        check_equal(engine, EmbeddedShuffles(14), indexes)


def check_equal(engine, kernels, indexes):
    assert isinstance(engine, SparkShuffles)
    older, own = indexes
    wanted = np.arange(len(own)) % 3 > 0
    everything = np.ones(len(older), dtype=np.bool_)
    for part in (None, JoinPart(3, 9), JoinPart(0, 14, 1, 3)):
        expected = kernels.pairs(own, wanted, older, part)
        assert np.array_equal(engine.pairs(own, wanted, older, part), expected), part
    inside = kernels.pairs(older, everything, older)
    assert len(inside) > 0
    assert np.array_equal(engine.pairs(older, everything, older), inside)
    edges = np.stack([inside >> 32, inside & 0xFFFFFFFF], axis=1)
    assert np.array_equal(engine.roots(older.doc_ids, edges), kernels.roots(older.doc_ids, edges))
    nothing = np.empty((0, 2), dtype=np.int64)
    assert engine.roots(older.doc_ids, nothing).tolist() == list(range(len(older)))
