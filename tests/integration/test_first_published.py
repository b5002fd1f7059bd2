"""What is published first stays: backfills take nothing, later runs give way, whatever the crawls' ages."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpusmill.demo.page_chrome import Page
from corpusmill.demo.warc_writing import Place, gzip_member, page_records
from corpusmill.recipe import Recipe, parse_recipe
from corpusmill.runner import chain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OLD, MIDDLE, NEW = "T-2024-10", "T-2024-20", "T-2024-30"
NOUNS = ("river", "water", "mountain", "valley", "weather", "station", "field", "team", "summer", "winter", "farmer")
VERBS = ("measured", "carried", "painted", "repaired", "followed", "counted", "lifted", "opened", "crossed", "planted")


def sentences(seed: int) -> list[str]:
    rng = random.Random(seed)
    found = []
    for _ in range(20):
        a, b, c, d = rng.sample(NOUNS, 4)
        found.append(
            f"The {a} of the {b} {rng.choice(VERBS)} the {c} {rng.randrange(10**6)} times before the {d} came."
        )
    return found


def nearly(text: list[str], seed: int) -> list[str]:
    return [*text[:-1], sentences(seed)[0]]


PAGES = {
    OLD: [{"own": sentences(1), "all": sentences(2)}, {"pair": sentences(3), "like": sentences(4)}],
    MIDDLE: [{"own": sentences(11), "all": sentences(2)}, {"like": nearly(sentences(4), 41)}],
    NEW: [{"own": sentences(21), "all": sentences(2)}, {"pair": sentences(3), "like": nearly(sentences(4), 42)}],
}
"""Pages of each crawl by file: ``all`` is the same in all crawls, ``pair`` in two, ``like`` nearly so in all."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crawls")
    for crawl, files in PAGES.items():
        names = []
        for number, pages in enumerate(files):
            name = f"crawl-data/{crawl}/segments/1.0/warc/{crawl}-{number:05d}.warc.gz"
            place = Place(crawl, Path(name).name, "2024-02-20T00:00:00Z")
            members = []
            for title, text in pages.items():
                body = (
                    f"<html><body><main><article>{''.join(f'<p>{s}</p>' for s in text)}</article></main></body></html>"
                )
                members += page_records(place, Page(f"https://a.example/{crawl}/{title}", body.encode()), place.date)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"".join(gzip_member(member) for member in members))
            names.append(name)
        listed = folder / "crawl-data" / crawl / "warc.paths.gz"
        listed.write_bytes(gzip.compress("\n".join(names).encode() + b"\n"))
    (folder / "collinfo.json").write_text(json.dumps([{"id": crawl} for crawl in (NEW, MIDDLE, OLD)]))
    return folder


@pytest.fixture
def recipe(base: Path) -> Callable[..., Recipe]:
    def make(name: str, **changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "name": name,
            "source": {"base": str(base)},
            "shards": {"max_shards": 1},
            "rules": {"preset": "none", "languages": None},
            "deduplication": {"near": {}, "survivor": "first_published"},
        }
        return parse_recipe({**values, **changes})

    return make


def quiet(line: str) -> None:
    assert line


def published(recipe: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in open_lakehouse().table(f"{recipe}.corpus").scan(None, columns=["crawl", "url"]).to_pylist():
        found.setdefault(row["crawl"], set()).add(row["url"].rpartition("/")[2])
    return found


def keys(recipe: str) -> dict[str, str | None]:
    corpus = open_lakehouse().table(f"{recipe}.corpus")
    return {p["crawl"]: corpus.partition_key(p) for p in corpus.partitions()}


def test_a_backfill_gives_way_to_what_is_published_and_takes_nothing(home, recipe):
    refresh(recipe("first"), NEW, None, quiet)
    assert published("first") == {NEW: {"own", "all", "pair", "like"}}
    first = keys("first")[NEW]
    report = refresh(recipe("first"), OLD, None, quiet)
    assert report["published"] == 1
    rows = open_lakehouse().table("first.duplicates").scan({"crawl": OLD}).to_pylist()
    assert {(row["kind"], row["duplicate_of_crawl"], row["kept"]) for row in rows} == {
        ("exact", NEW, False),
        ("near", NEW, False),
    }
    refresh(recipe("first"), MIDDLE, None, quiet)
    assert published("first") == {NEW: {"own", "all", "pair", "like"}, OLD: {"own"}, MIDDLE: {"own"}}
    assert keys("first")[NEW] == first, "what is published is never written again"


def test_a_second_run_does_nothing_though_other_crawls_were_published_since(home, recipe):
    for crawl in (NEW, OLD, MIDDLE):
        refresh(recipe("again"), crawl, None, quiet)
    before = open_lakehouse().table("again.corpus").snapshot_id()
    values = recipe("again").model_dump(mode="json")
    assert all(chain.plan(values, crawl, "again")["already_published"] for crawl in (OLD, NEW, MIDDLE))
    assert open_lakehouse().table("again.corpus").snapshot_id() == before


def test_crawls_that_are_decided_again_one_after_the_other_settle(home, recipe):
    for crawl in (NEW, OLD):
        refresh(recipe("again"), crawl, None, quiet)
    first, other = published("again"), recipe("again", rules={"preset": "none", "languages": None, "pii": False})
    for crawl in (NEW, OLD, NEW, OLD):
        refresh(other, crawl, None, quiet)
    assert published("again") == first
    settled = keys("again")
    for crawl in (NEW, OLD):
        assert chain.plan(other.model_dump(mode="json"), crawl, "once more")["already_published"]
    assert keys("again") == settled


def test_a_document_that_a_later_run_adds_gives_way_to_a_newer_crawl_that_published_it(home, recipe):
    refresh(recipe("grown", ingest={"max_files": 1}), OLD, None, quiet)
    refresh(recipe("grown"), NEW, None, quiet)
    assert published("grown") == {OLD: {"own", "all"}, NEW: {"own", "pair", "like"}}
    made = refresh(recipe("grown"), OLD, None, quiet)
    assert published("grown") == {OLD: {"own", "all"}, NEW: {"own", "pair", "like"}}
    step = next(step for step in made["funnel"] if step["stage"] == "deduplicate")
    assert step["removed"] == {"deduplicate.exact_published_crawl": 1, "deduplicate.near_published_crawl": 1}


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)], ids=["older first", "newer first"])
def test_of_crawls_published_at_the_same_time_the_second_gives_way(home, recipe, order):
    made = recipe("at_once").model_dump(mode="json")
    chain.initialise(["at_once"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in order}
    for planned in plans.values():
        for stage in ("ingest", "clean"):
            chain.run_shard(planned["plan"], stage, "00000")
            chain.commit(planned["plan"], stage)
        chain.deduplicate(planned["plan"])
        chain.select(planned["plan"])
        chain.run_shard(planned["plan"], "assemble", "00000")
        chain.commit(planned["plan"], "assemble")
        chain.validate(planned["plan"])
    for crawl in order:
        chain.publish(plans[crawl]["plan"])
    assert published("at_once") == {order[0]: {"own", "all", "pair", "like"}, order[1]: {"own"}}
    assert all(chain.plan(made, crawl, "again")["already_published"] for crawl in order)
