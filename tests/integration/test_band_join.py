"""The band join in parts: killed parts, parts of other settings, published runs, engines that are not installed."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from corpusmill.dedup.shuffles import EmbeddedShuffles
from corpusmill.dedup.spark_master import VARIABLE
from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import LakehouseUnavailableError
from corpusmill.recipe import parse_recipe
from corpusmill.runner import chain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh
from corpusmill.runner.spark_shuffles import SparkShuffles

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_spec = importlib.util.spec_from_file_location("near_crawls", Path(__file__).with_name("test_near_duplicates.py"))
crawls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crawls)
CRAWL = "T-2024-10"
PARTS = ["bands-000-006", "bands-007-013"]


@pytest.fixture
def recipe(tmp_path):
    text = crawls.sentences(1)
    alike = [[*text[:-1], crawls.sentences(2 + i)[0]] for i in range(5)]
    pages = {f"https://a.example/{n}": page for n, page in enumerate([*alike, crawls.sentences(9)])}
    crawls.write_crawl(tmp_path / "crawls", CRAWL, [pages])
    return {
        "name": "parts",
        "source": {"base": str(tmp_path / "crawls")},
        "shards": {"max_shards": 2},
        "rules": {"preset": "none", "languages": None},
        "deduplication": {"near": {"threshold": 0.5}},
    }


@pytest.fixture
def cleaned(home, recipe):
    """A plan whose documents are there."""
    chain.initialise(["parts"])
    planned = chain.plan(recipe, CRAWL, "run")
    for stage in ("ingest", "clean"):
        for shard in planned["shards"]:
            chain.run_shard(planned["plan"], stage, shard)
        chain.commit(planned["plan"], stage)
    return planned["plan"]


def pairs_of(home):
    return {path.name: path.read_bytes() for path in home.rglob("band_pairs/*/*/*.parquet")}


def test_a_killed_part_is_joined_again_alone_with_the_same_pairs(home, cleaned):
    assert chain.index_bands(cleaned)["parts"] == PARTS
    first = chain.join_bands(cleaned, PARTS[0])
    assert first["pairs"] > 0
    assert not first["skipped"]
    program = (
        "import os, signal, sys\n"
        "from corpusmill.runner import chain, pair_files\n"
        "pair_files.write_whole = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "chain.join_bands(*sys.argv[1:])\n"
    )
    dead = subprocess.run([sys.executable, "-c", program, cleaned, PARTS[1]], capture_output=True, env=os.environ)
    assert dead.returncode == -signal.SIGKILL
    before = pairs_of(home)
    assert list(before) == [f"{PARTS[0]}.parquet"]

    assert not chain.join_bands(cleaned, PARTS[1])["skipped"]
    assert chain.join_bands(cleaned, PARTS[0])["skipped"]
    joined = pairs_of(home)
    assert joined.items() > before.items()
    (damaged,) = home.rglob(f"band_pairs/*/*/{PARTS[1]}.parquet")
    damaged.write_bytes(b"not a file of pairs")
    assert not chain.join_bands(cleaned, PARTS[1])["skipped"]
    assert pairs_of(home) == joined

    report = chain.deduplicate(cleaned)
    assert report["removed"] == {"deduplicate.near_same_crawl": 4}
    assert pairs_of(home) == {}
    assert chain.index_bands(cleaned)["parts"] == PARTS
    assert open_lakehouse().table("parts.minhash").count({"crawl": CRAWL}) == 6 * 14


def test_a_part_that_was_cut_under_other_settings_is_joined_all_the_same(home, cleaned):
    """An index may have grown since the parts were named, or another worker have another engine."""
    chain.index_bands(cleaned)
    assert chain.join_bands(cleaned, "bands-000-013")["pairs"] > 0
    with pytest.raises(ConfigError, match=r"part='bands-000-014' is not of a join of 14 bands; .*'bands-000-013'"):
        chain.join_bands(cleaned, "bands-000-014")
    assert chain.deduplicate(cleaned)["removed"] == {"deduplicate.near_same_crawl": 4}


def test_a_run_that_another_one_has_published_names_one_part_and_does_nothing(home, recipe, cleaned):
    refresh(parse_recipe(recipe), CRAWL, None, lambda line: None)
    named = chain.index_bands(cleaned)
    assert (named["skipped"], named["parts"]) == (True, ["bands-000-013"])
    assert chain.join_bands(cleaned, "bands-000-013")["skipped"]


def test_an_answer_of_spark_that_is_gone_is_no_answer(home, cleaned):
    shuffles = SparkShuffles(open_lakehouse(), None, f"{home.as_uri()}/scratch", EmbeddedShuffles(14))
    with pytest.raises(LakehouseUnavailableError, match="is not there: it was deleted"):
        list(shuffles._written(f"{home.as_uri()}/scratch/gone"))


def test_planning_says_what_the_engine_lacks(home, recipe, monkeypatch):
    chain.initialise(["parts"])
    monkeypatch.setenv(VARIABLE, "local[2]")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match=r"local\[2\].*lacks pyspark \(pip install .*corpusmill\[spark\]"):
        chain.plan(recipe, CRAWL, "run")
    exact = {**recipe, "deduplication": {}}
    assert chain.plan(exact, CRAWL, "run")["shards"] == ["00000"]
    assert parse_recipe(exact).deduplication.near is None
