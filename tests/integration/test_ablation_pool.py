"""A pool from a lakehouse table: its rows, the commit it was read at, and a partition that is not there."""

import json

import pytest

from corpusmill.ablation.config import PoolConfig
from corpusmill.ablation.pool import split_pool
from corpusmill.ablation.sources import pool_documents, source_content
from corpusmill.errors import ConfigError
from corpusmill.refiner_recipe import parse_refiner_recipe
from corpusmill.runner import chain
from corpusmill.runner.building.plan import SEEDS_TABLE, plan_build
from corpusmill.runner.building.sampling import sample_seed
from corpusmill.runner.open_lakehouse import open_lakehouse

pytestmark = pytest.mark.integration


@pytest.fixture
def sampled(home, tmp_path):
    """Samples so many documents into a table of the lakehouse; returns their ids."""
    chain.initialise(["demo"])
    lake = open_lakehouse()

    def sample(n):
        path = tmp_path / f"{n}.jsonl"
        rows = [{"id": f"d{i}", "text": f"Document {i} speaks of hills and rivers. " * 9} for i in range(n)]
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
    before = source_content(pool)
    assert source_content(pool) == before
    parts = split_pool(pool)
    assert len(parts["pool"]) + len(parts["reference"]) + len(parts["test_crawl"]) == 20
    sampled(30)
    assert source_content(pool) != before


def test_a_partition_that_is_not_there_is_told(sampled):
    sampled(5)
    with pytest.raises(ConfigError, match="no rows of partition='CC-MAIN-2024-10'"):
        pool_documents(PoolConfig(table=SEEDS_TABLE, partition="CC-MAIN-2024-10"))
