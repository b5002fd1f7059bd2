"""Ablations on a lakehouse: a pool from a table with the commit it was read at, and a registered reference model."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest

from corpusmill.ablation import experiment
from corpusmill.ablation.config import PoolConfig
from corpusmill.ablation.pool import split_pool
from corpusmill.ablation.sources import pool_documents, source_content
from corpusmill.errors import ConfigError
from corpusmill.modeling.load import model_folder
from corpusmill.refiner_recipe import parse_refiner_recipe
from corpusmill.runner import chain
from corpusmill.runner.building.plan import SEEDS_TABLE, plan_build
from corpusmill.runner.building.sampling import sample_seed
from corpusmill.runner.model_registry import register_model, store_model
from corpusmill.runner.open_lakehouse import open_lakehouse

pytestmark = pytest.mark.integration


@pytest.fixture
def sampled(home, tmp_path):
    """Samples so many documents into a table of the lakehouse; returns their ids."""
    chain.initialise(["demo"])
    lake = open_lakehouse()

    def sample(n):
        path = tmp_path / f"{n}.jsonl"
        text = "Document {} speaks of hills and rivers. " * 9
        rows = [
            {"id": f"d{i}", "text": text.format(*[i] * 9), "url": f"https://www.hills{i % 2}.org/{i}"} for i in range(n)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"name": "lines", "seed": {"files": [str(path)], "n_documents": n}}
        recipe = parse_refiner_recipe({**values, "labels": {"route": "gold"}, "train": {"steps": 1}})
        plan = plan_build(lake, recipe, f"run-{n}")
        sample_seed(lake, plan, lambda _: None)
        return {row["doc_id"] for row in lake.table(SEEDS_TABLE).scan(plan.partition).to_pylist()}

    return sample


def test_a_pool_is_read_from_a_table_and_its_key_follows_the_commits(sampled):
    pool = PoolConfig(table=SEEDS_TABLE)
    ids = sampled(20)
    documents = pool_documents(pool)
    assert {document.doc_id for document in documents} == ids
    assert documents == sorted(documents, key=lambda d: d.doc_id)
    assert {document.domain for document in documents} == {"hills0.org", "hills1.org"}
    before = source_content(pool)
    assert source_content(pool) == before
    parts = split_pool(pool)
    assert len(parts["pool"]) + len(parts["reference"]) + len(parts["test_crawl"]) == 20
    sampled(30)
    assert source_content(pool) != before


def test_a_registered_model_scores_a_pool_and_is_named_by_its_content(home, tmp_path):
    chain.initialise(["demo"])
    lake = open_lakehouse()
    stored = store_model(lake, "clean", model_folder("bundled:reference_lm"))
    model = dataclasses.replace(stored, kind="reference-model", quality="{}")
    register_model(lake, model, "run-1")
    recipe = {
        "name": "registered",
        "pool": {"files": ["bundled:texts"], "noise": {}, "max_documents": 9},
        "references": {"clean": {"model": model.reference}, "bundled": {"model": "bundled:reference_lm"}},
        "scores": [{"references": ["clean", "bundled"], "which": ["bottom"]}],
    }
    plan = experiment.prepare(recipe, str(tmp_path / "out"), lambda _: None)["plan"]
    found = [experiment.score(plan, name, lambda _: None) for name in ("clean", "bundled")]
    assert found[0]["n_units"] == found[1]["n_units"] > 0
    loaded = experiment.load_plan(plan)
    assert loaded.content["reference:clean"] == loaded.content["reference:bundled"]
    tables = [pq.read_table(loaded.scores(name)) for name in ("clean", "bundled")]
    assert tables[0].equals(tables[1])


def test_a_partition_that_is_not_there_is_told(sampled):
    sampled(5)
    with pytest.raises(ConfigError, match="no rows of partition='CC-MAIN-2024-10'"):
        pool_documents(PoolConfig(table=SEEDS_TABLE, partition="CC-MAIN-2024-10"))
