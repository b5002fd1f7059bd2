"""Scoring in a child process that dies midway: what earlier shards scored stays, and only one shard is scored again."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from corpusmill.errors import WorkerDiedError
from corpusmill.lakehouse.shards import find_manifest
from corpusmill.runner import chain
from corpusmill.runner.child import ChildJob
from corpusmill.runner.plan import load_plan

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CRAWL = "T-2024-10"
STAGES = ("ingest", "clean")


def prepared(recipe, run_id: str) -> tuple[str, list[str]]:
    """Plans a run, takes it to where scoring starts, and returns the plan's URI and the shards."""
    chain.initialise([recipe.name])
    planned = chain.plan(recipe.model_dump(mode="json"), CRAWL, run_id)
    uri, shards = planned["plan"], planned["shards"]
    for stage in STAGES:
        for shard in shards:
            chain.run_shard(uri, stage, shard)
        chain.commit(uri, stage)
    chain.deduplicate(uri)
    return uri, shards


def scoring(uri: str, shard: str) -> ChildJob:
    return ChildJob("corpusmill.runner.chain:run_shard", {"plan": uri, "stage": "score", "shard": shard})


def scores_of(recipe: str) -> list[dict]:
    rows = chain.open_lakehouse().table(f"{recipe}.scores").scan(None).sort_by("doc_id").to_pylist()
    assert rows
    return rows


def test_a_killed_scorer_loses_one_shard_and_a_second_run_gives_the_same_rows(home, recipe):
    score = {"score": {"model": "bundled:reference_lm", "device": "cpu"}, "shards": {"max_shards": 2}}
    uri, shards = prepared(recipe("whole", **score), "whole")
    for shard in shards:
        chain.run_shard(uri, "score", shard)
    chain.commit(uri, "score")

    uri, (first, second) = prepared(recipe("killed", **score), "killed")
    scoring(uri, first).run(lambda line: None)
    victim = scoring(uri, second)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        victim.run(lambda line: victim.kill())
    plan, lake = load_plan(chain.open_lakehouse(), uri), chain.open_lakehouse()
    manifests = [
        find_manifest(lake, "killed.scores", plan.token("score"), plan.shard(shard).identity)
        for shard in (first, second)
    ]
    assert manifests[0] is not None
    assert manifests[1] is None

    reports = [scoring(uri, shard).run(lambda line: None) for shard in (first, second)]
    assert [report["skipped"] for report in reports] == [True, False]
    chain.commit(uri, "score")
    assert scores_of("killed") == scores_of("whole")
