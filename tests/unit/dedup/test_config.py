"""Settings of deduplication: bounds, and what the index depends on."""

import pytest

from corpusmill.config import fingerprint
from corpusmill.dedup.config import DeduplicationConfig, NearConfig
from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe
from corpusmill.runner.plan import BaseCrawl, commit_keys


def test_near_is_off_by_default_and_takes_the_published_parameters():
    assert DeduplicationConfig().near is None
    near = DeduplicationConfig.load({"near": {}}).near
    assert near is not None
    assert (near.bands, near.rows, near.ngram, near.threshold) == (14, 8, 5, 0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"near": {"threshold": 0.49}}, "near.threshold=0.49"),
        ({"near": {"bands": 0}}, "near.bands=0"),
        ({"near": {"jaccard": 0.9}}, "near.jaccard"),
        ({"method": None, "near": {}}, "near=... needs method='exact'"),
        ({"lines": {"unit": "sentence"}}, "lines.unit='sentence'"),
        ({"lines": {"min_words": 0}}, "lines.min_words=0"),
        ({"lines": {"max_removed": 0}}, "lines.max_removed=0"),
        ({"survivor": "newest"}, "survivor='newest': Input should be 'oldest_crawl' or 'first_published'"),
        ({"survivor": "first_published", "across_crawls": False}, "set across_crawls=True and method='exact'"),
        ({"survivor": "first_published", "method": None}, "nothing is compared across crawls"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        DeduplicationConfig.load(values)


def test_the_threshold_is_not_in_the_index_and_every_other_setting_is():
    default = NearConfig().index_fingerprint()
    assert NearConfig(threshold=0.8).index_fingerprint() == default
    others = [NearConfig(bands=20), NearConfig(rows=5), NearConfig(ngram=3)]
    assert len({default, *(other.index_fingerprint() for other in others)}) == 4


def keys_of(deduplication: dict) -> dict[str, str]:
    recipe = Recipe.load({"name": "r", "deduplication": deduplication})
    return commit_keys(recipe, "C", extraction="e", paths_digest="d", models={}, base=[])


def test_another_threshold_changes_the_decisions_and_keeps_the_index():
    off, low, high = keys_of({}), keys_of({"near": {}}), keys_of({"near": {"threshold": 0.8}})
    assert "minhash" not in off
    assert low["minhash"] == high["minhash"]
    assert len({keys["deduplicate"] for keys in (off, low, high)}) == 3
    assert len({keys["clean"] for keys in (off, low, high)}) == 1


def test_lines_are_off_by_default_and_leave_the_keys_of_older_corpora_as_they_were():
    assert DeduplicationConfig().lines is None
    without = {"method": "exact", "near": None, "across_crawls": True, "survivor": "oldest_crawl"}
    assert DeduplicationConfig().fingerprint() == fingerprint(without)
    assert keys_of({}).keys() == keys_of({"lines": {}}).keys() - {"lines"}


def test_other_lines_change_the_texts_and_not_the_index():
    off, five, ten = (keys_of({"near": {}, **lines}) for lines in ({}, {"lines": {}}, {"lines": {"min_words": 10}}))
    assert len({keys["minhash"] for keys in (off, five, ten)}) == 1
    assert len({keys["refine_documents"] for keys in (off, five, ten)}) == 3
    assert five["lines"] != ten["lines"]


def test_published_older_crawls_do_not_change_what_lines_are_removed():
    recipe = Recipe.load({"name": "r", "deduplication": {"lines": {}}})
    common = {"extraction": "e", "paths_digest": "d", "models": {}}
    alone, later = (commit_keys(recipe, "C", base=base, **common) for base in ([], [BaseCrawl(crawl="B", key="k")]))
    assert alone["lines"] == later["lines"]
    assert alone["deduplicate"] != later["deduplicate"]
