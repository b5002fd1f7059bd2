"""Registered models: stored once, named by content, refused where the files changed or the version is left out."""

import dataclasses

import pytest

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.runner import chain
from corpusmill.runner.model_registry import fetch_model, find_model, register_model, store_model
from corpusmill.runner.models import pin_model, with_model
from corpusmill.runner.open_lakehouse import open_lakehouse


@pytest.fixture
def lake(home):
    chain.initialise(["demo"])
    return open_lakehouse()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "config.json").write_text('{"quality": {"keep_f1": 0.9}}')
    (made / "sub" / "weights.bin").write_bytes(b"\x01" * 10_000)
    return made


def registered(lake, folder, name="lines"):
    model = dataclasses.replace(store_model(lake, name, folder), kind="labeller", quality="{}")
    register_model(lake, model, "run-1")
    return model


def test_a_registered_model_is_found_by_name_and_version_and_its_files_are_the_same(lake, folder):
    model = registered(lake, folder)
    found = find_model(lake, f"registered:lines@{model.version}")
    assert found == model
    place = fetch_model(lake, found)
    assert (place / "sub" / "weights.bin").read_bytes() == b"\x01" * 10_000


def test_registering_the_same_model_again_changes_no_table(lake, folder):
    model = registered(lake, folder)
    before = open_lakehouse().table("ops.models").snapshot_id()
    assert not register_model(lake, model, "run-2")
    assert open_lakehouse().table("ops.models").snapshot_id() == before


def test_a_stored_model_is_not_found_before_it_is_registered(lake, folder):
    store_model(lake, "lines", folder)
    with pytest.raises(ConfigError, match="no model of that name is registered"):
        find_model(lake, "registered:lines")


def test_a_recipe_that_leaves_the_version_out_is_told_the_versions(lake, folder):
    model = registered(lake, folder)
    with pytest.raises(ConfigError, match=model.version):
        pin_model("registered:lines")
    assert find_model(lake, "lines", only_one=True) == model


def test_a_changed_file_is_refused(lake, folder):
    model = registered(lake, folder)
    (fetch_model(lake, model) / "sub" / "weights.bin").write_bytes(b"\x02" * 10_000)
    with pytest.raises(ModelError, match="does not have the sha256"):
        fetch_model(lake, model)


def test_a_recipe_pins_the_digest_and_a_worker_gets_the_folder(lake, folder):
    model = registered(lake, folder)
    pinned = pin_model(model.reference)
    assert (pinned.location, pinned.sha256) == (model.reference, model.sha256)
    config = with_model(ChunkRefinementConfig(backend="labeller", model=model.reference), pinned)
    assert config.model == str(fetch_model(lake, model))
    assert config.sha256 == model.sha256
    with pytest.raises(ConfigError, match="the recipe expects"):
        pin_model(model.reference, sha256="0" * 64)
