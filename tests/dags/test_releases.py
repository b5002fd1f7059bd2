import json
import os

import pytest

from corpusmill.errors import ConfigError
from corpusmill.recipe import SourceConfig
from corpusmill_operators.releases import read_releases, releases_of

COMMON_CRAWL = [
    {"id": "CC-MAIN-2024-33", "name": "August 2024", "from": "2024-08-02T23:35:08", "to": "2024-08-16T02:35:08"},
    {"id": "CC-MAIN-2024-10", "name": "Feb 2024", "from": "2024-02-20T21:10:55", "to": "2024-03-05T10:26:08"},
]


@pytest.fixture
def listed(tmp_path):
    (tmp_path / "collinfo.json").write_text(json.dumps(COMMON_CRAWL))
    return tmp_path


def test_common_crawls_list_is_read_oldest_first_by_the_day_each_crawl_ended(listed):
    assert read_releases(listed / "collinfo.json") == (
        ("CC-MAIN-2024-10", "2024-03-05"),
        ("CC-MAIN-2024-33", "2024-08-16"),
    )


def test_a_released_date_goes_before_the_crawl_dates(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([{**COMMON_CRAWL[0], "released": "2024-08-27"}]))
    assert read_releases(tmp_path / "list.json") == (("CC-MAIN-2024-33", "2024-08-27"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds dict, expected a list"),
        ('[{"id": "A"}]', "is not a release"),
        ("[3]", "is not a release"),
    ],
)
def test_a_broken_list_is_refused_with_its_place_and_what_was_expected(tmp_path, text, message):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_releases(tmp_path / "list.json")


def test_a_list_that_is_yet_to_be_made_holds_nothing_but_the_bundled_crawls_have_theirs(tmp_path):
    assert releases_of(SourceConfig(releases="later.json"), tmp_path) == ()
    with pytest.raises(ConfigError, match="does not exist"):
        releases_of(SourceConfig(base="bundled:crawls", releases="nowhere.json"), tmp_path)


def test_a_named_list_is_found_beside_the_recipe_and_through_the_environment(listed, tmp_path, monkeypatch):
    monkeypatch.setenv("RELEASES", str(listed))
    expected = read_releases(listed / "collinfo.json")
    assert releases_of(SourceConfig(releases="collinfo.json"), listed) == expected
    assert releases_of(SourceConfig(releases="$RELEASES/collinfo.json"), tmp_path / "elsewhere") == expected


def test_a_local_base_brings_its_own_list_and_a_remote_one_is_looked_for_at_home(listed, monkeypatch):
    expected = read_releases(listed / "collinfo.json")
    assert releases_of(SourceConfig(base=os.fspath(listed)), listed) == expected
    monkeypatch.setenv("CORPUSMILL_HOME", str(listed))
    assert releases_of(SourceConfig(), listed) == expected
    monkeypatch.setenv("CORPUSMILL_HOME", str(listed / "empty"))
    assert releases_of(SourceConfig(), listed) == ()
