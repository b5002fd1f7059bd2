"""A reference model built on PostgreSQL and an S3 server has the weights that an embedded lakehouse gives."""

import pytest

from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.pruning.config import ScoringConfig
from corpusmill.reference_model_recipe import parse_reference_model_recipe
from corpusmill.runner.chain import initialise
from corpusmill.runner.models import pin_model, with_model
from corpusmill.runner.reference_building import chain

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RECIPE = {
    "name": "remote",
    "corpus": {"files": ["bundled:sources/articles_*.txt"]},
    "tokenizer": {"n_vocab": 300},
    "model": "test",
    "training": {"steps": 6, "batch_size": 4, "warmup_steps": 2},
    "seeds": [0, 1],
    "validation": {"share": "1/8", "max_sequences": 4},
}


def build(run_id):
    initialise([])
    recipe = parse_reference_model_recipe(RECIPE).model_dump(mode="json")
    said = []
    return chain.build(recipe, run_id, said.append), said


def test_a_model_on_s3_is_the_one_of_a_local_folder(home, server_lakehouse, monkeypatch):
    embedded, _ = build("run-1")
    monkeypatch.setenv("CORPUSMILL_CATALOG_URI", server_lakehouse["catalog_uri"])
    monkeypatch.setenv("CORPUSMILL_WAREHOUSE", server_lakehouse["warehouse"])
    monkeypatch.setenv("CORPUSMILL_S3_ENDPOINT", server_lakehouse["s3_endpoint"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server_lakehouse["s3_credentials"]["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server_lakehouse["s3_credentials"]["secret_key"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    remote, said = build("run-1")
    assert remote == embedded
    assert [line for line in said if line.startswith("seed1 step 6")]
    config = with_model(ScoringConfig(model=remote["model"]), pin_model(remote["model"]))
    assert config.model.startswith(str(corpusmill_home() / "models"))
    again, said = build("run-2")
    assert again == {**remote, "new": 0}
    assert not [line for line in said if " step " in line]
