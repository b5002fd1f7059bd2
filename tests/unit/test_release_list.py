"""The list that the timetable reads: releases are added once, in order, and never go or move."""

import datetime as dt
import json
import os
import subprocess
import sys

import pytest

from corpusmill.errors import ConfigError
from corpusmill.recipe import SourceConfig
from corpusmill.release_list import is_watched, list_place, read_releases, releases_of, update_release_list

TODAY = dt.date(2024, 9, 20)
HISTORY = [("C-2024-10", "2024-03-05"), ("C-2024-18", "2024-04-25"), ("C-2023-50", "2023-12-12")]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "lists" / "collinfo.json"


def test_a_list_that_begins_keeps_the_days_on_which_crawls_ended(place):
    update = update_release_list(place, HISTORY, TODAY)
    assert update.first
    assert read_releases(place) == update.new == (HISTORY[2], HISTORY[0], HISTORY[1])


def test_crawls_that_ended_on_one_day_get_days_of_their_own(place):
    same = [("B", "2024-03-05"), ("A", "2024-03-05"), ("C", "2024-03-06")]
    update_release_list(place, same, TODAY)
    assert read_releases(place) == (("A", "2024-03-05"), ("B", "2024-03-06"), ("C", "2024-03-07"))


def test_a_later_crawl_is_dated_by_its_discovery_so_that_no_start_date_and_no_newer_run_hides_it(place):
    update_release_list(place, HISTORY, TODAY)
    update = update_release_list(place, [*HISTORY, ("C-2024-33", "2024-08-16")], TODAY)
    assert (update.new, update.first, update.known) == ((("C-2024-33", "2024-09-20"),), False, 4)
    late = update_release_list(place, [*HISTORY, ("C-2024-05", "2024-01-30")], TODAY + dt.timedelta(days=1))
    assert late.new == (("C-2024-05", "2024-09-21"),), "an old crawl that is listed late comes after all others"


def test_several_at_once_are_all_due_today_in_the_order_in_which_they_ended(place):
    update_release_list(place, HISTORY, TODAY)
    three = [("Z", "2024-08-01"), ("Y", "2024-08-15"), ("X", "2024-09-01")]
    assert update_release_list(place, [*HISTORY, *three], TODAY).new == (
        ("Z", "2024-09-18"), ("Y", "2024-09-19"), ("X", "2024-09-20"),
    )  # fmt: skip
    more = [("V", "2024-09-02"), ("W", "2024-09-01")]
    assert update_release_list(place, [*HISTORY, *three, *more], TODAY).new == (
        ("W", "2024-09-21"), ("V", "2024-09-22"),
    )  # fmt: skip


def test_what_is_listed_never_moves_or_vanishes(place):
    update_release_list(place, HISTORY, TODAY)
    moved = [("C-2024-10", "2024-03-09"), ("C-2024-33", "2024-08-16")]  # another day for one, two others gone
    update_release_list(place, moved, TODAY)
    assert dict(read_releases(place)) == {**dict(HISTORY), "C-2024-33": "2024-09-20"}


def test_entries_of_another_hand_are_kept_whole(place):
    entry = {"id": "C-2024-10", "name": "March", "to": "2024-03-05T10:26:08", "cdx-api": "https://x"}
    place.parent.mkdir()
    place.write_text(json.dumps([entry]))
    update_release_list(place, [("C-2024-33", "2024-08-16")], TODAY)
    assert json.loads(place.read_text()) == [entry, {"id": "C-2024-33", "released": "2024-09-20"}]


def test_a_look_without_news_changes_the_age_alone(place):
    update_release_list(place, HISTORY, TODAY)
    before = place.read_bytes()
    os.utime(place, (1, 1))
    assert update_release_list(place, HISTORY, TODAY).new == ()
    assert place.read_bytes() == before
    assert place.stat().st_mtime > 1


def test_a_broken_list_on_disk_is_left_for_a_person(place):
    place.parent.mkdir()
    place.write_text("[{")
    with pytest.raises(ConfigError, match="is not JSON"):
        update_release_list(place, HISTORY, TODAY)
    assert place.read_text() == "[{"


ADD = """
import datetime, pathlib, sys
from corpusmill.release_list import update_release_list
for n in range(5):
    update_release_list(pathlib.Path(sys.argv[1]), [(f"N-{sys.argv[2]}-{n}", "2024-08-16")], datetime.date(2024, 9, 20))
"""


def test_lookers_at_the_same_moment_lose_none(place):
    update_release_list(place, HISTORY, TODAY)
    lookers = [subprocess.Popen([sys.executable, "-c", ADD, place, str(n)]) for n in range(3)]
    assert [looker.wait(timeout=60) for looker in lookers] == [0, 0, 0]
    releases = read_releases(place)
    assert {crawl for crawl, _ in releases} == {*dict(HISTORY), *(f"N-{n}-{i}" for n in range(3) for i in range(5))}
    assert len({day for _, day in releases}) == 18
    assert [p.name for p in place.parent.iterdir() if p.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "A", "to": "soon"}]', "is not a release"),
        ('[{"id": "A", "to": "2024-03-05"}, {"id": "A", "to": "2024-03-06"}]', "names crawl 'A' twice"),
        ('[{"id": "A", "to": "2024-03-05"}, {"id": "B", "to": "2024-03-05"}]', "has two crawls of '2024-03-05'"),
    ],
)
def test_a_list_that_no_timetable_could_use_is_refused(tmp_path, text, message):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_releases(tmp_path / "list.json")


def test_each_kind_of_source_has_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CORPUSMILL_RELEASE_LISTS", raising=False)

    def place_of(**source):
        return list_place(SourceConfig(**source), tmp_path)

    assert place_of() == place_of(base="s3://commoncrawl/") == tmp_path / "home" / "collinfo.json"
    assert place_of(base="https://crawls.example.org/a") == tmp_path / "home" / "collinfo-crawls.example.org-a.json"
    assert place_of(releases="mine.json") == tmp_path / "mine.json"
    monkeypatch.setenv("CORPUSMILL_RELEASE_LISTS", str(tmp_path / "shared"))
    assert place_of() == tmp_path / "shared" / "collinfo.json"


def test_a_folder_with_a_list_of_its_own_is_read_and_not_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    crawls = tmp_path / "crawls"
    crawls.mkdir()
    source = SourceConfig(base=str(crawls))
    assert is_watched(source, tmp_path)
    assert releases_of(source, tmp_path) == ()
    (crawls / "collinfo.json").write_text(json.dumps([{"id": "A", "to": "2024-03-05"}]))
    assert not is_watched(source, tmp_path)
    assert releases_of(source, tmp_path) == (("A", "2024-03-05"),)
    assert is_watched(SourceConfig(base=str(crawls), releases="mine.json"), tmp_path)
