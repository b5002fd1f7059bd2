"""Plans: shards and commit keys."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe, parse_recipe
from corpusmill.runner.models import PinnedModel, pin_model
from corpusmill.runner.pinned_files import pin_files
from corpusmill.runner.plan import BaseCrawl, commit_keys, cut_shards

BASE = {"extraction": "e", "paths_digest": "p", "models": {}, "base": ()}
SCORED = {"score": {"model": "bundled:reference_lm"}, "select": {"column": "el2n"}}


def keys(recipe: Recipe | None = None, crawl: str = "C-2024-10", **changes) -> dict[str, str]:
    return commit_keys(recipe or parse_recipe({"name": "x", **SCORED}), crawl, **{**BASE, **changes})


def changed(one: dict[str, str], two: dict[str, str]) -> set[str]:
    return {stage for stage in one if one[stage] != two[stage]}


@given(st.integers(1, 200), st.integers(1, 60))
def test_shards_are_few_even_and_keep_the_order(n_files, max_shards):
    files = [f"f{i}" for i in range(n_files)]
    shards = cut_shards(files, max_shards)
    assert list(itertools.chain.from_iterable(s.files for s in shards)) == files
    sizes = [len(s.files) for s in shards]
    assert len(shards) == min(n_files, max_shards)
    assert max(sizes) - min(sizes) <= 1


def test_a_setting_changes_the_keys_of_its_stage_and_of_every_later_one():
    other = parse_recipe({"name": "x", **SCORED, "score": {"model": "bundled:reference_lm", "context": 64}})
    assert changed(keys(), keys(other)) == {"score", "select", "corpus"}
    rules = parse_recipe({"name": "x", **SCORED, "rules": {"preset": "c4"}})
    assert changed(keys(), keys(rules)) == set(keys()) - {"ingest"}


def test_the_extractor_and_the_file_list_change_every_key():
    assert changed(keys(), keys(extraction="other")) == set(keys())
    assert changed(keys(), keys(paths_digest="other")) == set(keys())


def test_a_published_older_crawl_changes_the_keys_from_deduplication_on():
    later = keys(base=(BaseCrawl(crawl="C-2024-01", key="k"),))
    assert changed(keys(), later) == set(keys()) - {"ingest", "clean"}


def test_the_base_does_not_count_where_crawls_are_not_compared():
    alone = parse_recipe({"name": "x", **SCORED, "deduplication": {"across_crawls": False}})
    assert keys(alone) == keys(alone, base=(BaseCrawl(crawl="C-2024-01", key="k"),))


def test_pages_are_shared_by_recipes_and_nothing_else_is():
    other = parse_recipe({"name": "y", **SCORED})
    assert changed(keys(), keys(other)) == set(keys()) - {"ingest"}


def test_a_models_content_counts_not_its_place():
    here = PinnedModel(name="/a", location="/a", sha256="s")
    there = PinnedModel(name="/b", location="/b", sha256="s")
    else_ = PinnedModel(name="/a", location="/a", sha256="t")
    recipes = [parse_recipe({"name": "x", "score": {"model": m}}) for m in ("/a", "/b", "/a")]
    one, two, three = (keys(r, models={"score": p}) for r, p in zip(recipes, (here, there, else_), strict=True))
    assert one == two
    assert changed(one, three) == {"score", "select", "corpus"}


def test_a_model_that_is_not_there_is_a_clear_error():
    with pytest.raises(ConfigError, match="reference_lm"):
        pin_model("bundled:absent")
    with pytest.raises(ConfigError, match="/nowhere"):
        pin_model("/nowhere/model")


def test_a_shards_identity_holds_its_files():
    files = [f"f{i}" for i in range(4)]
    two, one = cut_shards(files, 2), cut_shards(files, 1)
    assert two[0].name == one[0].name == "00000"
    assert two[0].identity != one[0].identity
    assert cut_shards(files, 2)[0].identity == two[0].identity


def test_an_edited_list_file_changes_the_keys_from_the_rules_on(tmp_path):
    path = tmp_path / "domains.txt"
    recipe = parse_recipe({"name": "x", **SCORED, "rules": {"url_domains": str(path)}})
    path.write_text("a.example\n")
    before = keys(pin_files(recipe))
    path.write_text("b.example\n")
    assert changed(before, keys(pin_files(recipe))) == set(before) - {"ingest"}
    path.unlink()
    with pytest.raises(ConfigError, match=r"domains\.txt"):
        pin_files(recipe)


def test_a_model_with_another_digest_than_the_recipe_says_is_refused():
    with pytest.raises(ConfigError, match="expects '0000'"):
        pin_model("bundled:reference_lm", None, "0000")
