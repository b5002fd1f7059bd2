"""All models of a score are pinned: its ensemble and its baseline as well as its reference model."""

import pytest

from corpusmill.errors import ConfigError
from corpusmill.recipe import parse_recipe
from corpusmill.runner.alone import configured
from corpusmill.runner.models import PinnedModel, further_models, pin_models_of, with_model
from corpusmill.runner.plan import commit_keys, pin_models

BUNDLED = "bundled:reference_lm"


@pytest.fixture
def folders(tmp_path):
    """Three folders that stand for models; pinning reads bytes and nothing else."""
    places = []
    for name in ("first", "second", "third"):
        place = tmp_path / name
        place.mkdir()
        (place / "model.safetensors").write_bytes(name.encode())
        places.append(str(place))
    return places


def recipe_of(folders, **score):
    return parse_recipe({"name": "x", "score": {"model": folders[0], **score}})


def keys(recipe):
    return commit_keys(recipe, "C-2024-10", extraction="e", paths_digest="p", models=pin_models(recipe), base=())


def test_every_model_that_a_score_names_is_pinned_and_put_in_place(folders, tmp_path):
    config = recipe_of(folders, ensemble=[folders[1], {"model": folders[2]}], baseline=folders[1]).score
    assert [(name, place) for name, place, _ in further_models(config)] == [
        ("ensemble", 0),
        ("ensemble", 1),
        ("baseline", None),
    ]
    pinned = pin_models_of(config)
    assert len(set(pinned.identity())) == 3
    assert PinnedModel.load(pinned.model_dump(mode="json")) == pinned
    placed = with_model(config, pinned)
    assert [m.model for m in placed.ensemble] == folders[1:]
    assert placed.baseline.sha256 == placed.ensemble[0].sha256 == pinned.further[0].sha256


def test_another_model_anywhere_is_another_commit_key_and_another_place_is_not(folders, tmp_path):
    base = keys(recipe_of(folders, ensemble=folders[1:2], baseline=folders[2]))
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "model.safetensors").write_bytes(b"second")
    assert keys(recipe_of(folders, ensemble=[str(moved)], baseline=folders[2])) == base
    (moved / "model.safetensors").write_bytes(b"more steps")
    for other in ({"ensemble": [str(moved)], "baseline": folders[2]}, {"ensemble": folders[1:2]}, {}):
        changed = keys(recipe_of(folders, **other))
        assert {stage for stage in base if base[stage] != changed[stage]} == {"score", "select", "corpus"}
    exchanged = keys(recipe_of(folders, ensemble=folders[2:], baseline=folders[1]))
    assert exchanged["score"] != base["score"], "the ensemble's and the baseline's model are not the same thing"


def test_a_stage_alone_pins_them_too(folders):
    settings, identity = configured("score", {"model": folders[0], "ensemble": [folders[1]]})
    assert len(identity) == 2
    assert settings.ensemble[0].sha256 == identity[1]


def test_a_further_model_that_is_not_there_or_changed_is_named(folders):
    with pytest.raises(ConfigError, match="/nowhere"):
        pin_models_of(recipe_of(folders, baseline="/nowhere").score)
    with pytest.raises(ConfigError, match="expects 'beef'"):
        pin_models_of(recipe_of(folders, ensemble=[{"model": folders[1], "sha256": "beef"}]).score)
    assert pin_models_of(parse_recipe({"name": "x", "score": {"model": BUNDLED}}).score).further == ()
