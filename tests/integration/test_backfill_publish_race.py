"""Backfilled crawls that publish at the same moment, as processes of their own: all survive, no text comes twice."""

import subprocess
import sys
from collections import Counter

import pytest

from corpusmill.runner import chain
from corpusmill.runner.open_lakehouse import open_lakehouse

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PUBLISH = """
import pathlib, sys, time
from corpusmill.errors import Transient
from corpusmill.runner import chain
go, ready, plan = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
ready.touch()
while not go.exists():
    time.sleep(0.005)
for attempt in range(4):  # as often as Airflow repeats the task
    try:
        chain.publish(plan)
        break
    except Exception as error:
        if not isinstance(error, Transient) or attempt == 3:
            raise
"""


def validated(made, crawl):
    planned = chain.plan(made, crawl, f"run {crawl}")
    uri, shards = planned["plan"], planned["shards"]
    for stage in ("ingest", "clean"):
        for shard in shards:
            chain.run_shard(uri, stage, shard)
        chain.commit(uri, stage)
    chain.deduplicate(uri)
    chain.select(uri)
    for shard in shards:
        chain.run_shard(uri, "assemble", shard)
    chain.commit(uri, "assemble")
    chain.validate(uri)
    return uri


def test_backfilled_crawls_that_publish_at_once_all_survive_without_a_duplicate(home, recipe, corpus_of, tmp_path):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    crawls = ("T-2024-10", "T-2024-33")
    plans = [validated(made, crawl) for crawl in crawls]
    go, ready = tmp_path / "go", [tmp_path / f"ready-{crawl}" for crawl in crawls]
    publishers = [
        subprocess.Popen([sys.executable, "-c", PUBLISH, go, mark, plan])
        for mark, plan in zip(ready, plans, strict=True)
    ]
    while not all(mark.exists() for mark in ready):
        assert all(p.poll() is None for p in publishers)
    go.touch()
    assert [p.wait(timeout=120) for p in publishers] == [0, 0]
    corpus = corpus_of("tiny")
    assert max(Counter(corpus["dedup_digest"].to_pylist()).values()) == 1
    assert Counter(corpus["crawl"].to_pylist()) == {"T-2024-10": 20, "T-2024-33": 14}
    tags = {ref for ref in open_lakehouse().table("tiny.corpus").refs() if ref.startswith("tiny/")}
    assert {f"tiny/{crawl}/1" for crawl in crawls} <= tags
