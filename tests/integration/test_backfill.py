"""A backfill of three overlapping crawls, the middle one without an archive: repair, resume, nothing is done twice.

Here stage by stage; `test_backfill_live` does it through a live scheduler, where a person clears what failed.
"""

import importlib.util
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.recipe import load_recipe
from corpusmill.runner import chain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.filterwarnings("default")]

REPOSITORY = Path(__file__).resolve().parents[2]
OLD, MIDDLE, NEW = "H-2024-10", "H-2024-18", "H-2024-33"
DAYS = {OLD: "2024-03-05", MIDDLE: "2024-05-02", NEW: "2024-08-16"}
PAGES = {OLD: (0, 8), MIDDLE: (5, 13), NEW: (3, 16)}
"""Articles of each crawl, first and past the last: each crawl holds copies of both others."""
RECIPE = """
name: history
description: Rules and exact deduplication, no model, on three small crawls.
source: {{base: {base}}}
schedule: {{start_date: 2024-01-01}}
shards: {{max_shards: 2}}
rules: {{preset: fineweb, languages: [en]}}
validation: {{}}
"""


def of_conftest(name):
    spec = importlib.util.spec_from_file_location("crawl_writing", Path(__file__).with_name("conftest.py"))
    module = sys.modules.get("crawl_writing") or importlib.util.module_from_spec(spec)
    if "crawl_writing" not in sys.modules:
        sys.modules["crawl_writing"] = module
        spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.fixture
def project(tmp_path):
    """A project folder with one recipe over three crawls, the second of which lacks an archive."""
    write_crawl, article = of_conftest("write_crawl"), of_conftest("article")
    base = tmp_path / "crawls"
    for crawl, (first, end) in PAGES.items():
        half = (first + end) // 2
        parts = [range(first, half), range(half, end)]
        write_crawl(base, crawl, [{f"https://{crawl}.example/{n}": article(n) for n in part} for part in parts])
    (base / "collinfo.json").write_text(json.dumps([{"id": crawl, "to": day} for crawl, day in DAYS.items()]))
    folder = tmp_path / "project"
    (folder / "dags" / "recipes").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dags" / "corpus_refresh.py", folder / "dags")
    (folder / "plugins").symlink_to(REPOSITORY / "plugins")
    (folder / "dags" / "recipes" / "history.yaml").write_text(RECIPE.format(base=base))
    lost = base / f"crawl-data/{MIDDLE}/segments/1.0/warc/{MIDDLE}-00001.warc.gz"
    lost.rename(tmp_path / "kept.warc.gz")
    return folder, lost


def table(name):
    return open_lakehouse().table(name)


def published():
    """The published texts by crawl; a text that is published twice fails."""
    rows = table("history.corpus").scan(None, columns=["crawl", "text"]).to_pylist()
    assert [n for n in Counter(row["text"] for row in rows).values() if n > 1] == [], "a text is published twice"
    return Counter(row["crawl"] for row in rows)


def commits():
    """Key and epoch of every partition of the stage tables: what changes when work is done again."""
    found = {}
    for name in ("raw.pages", "history.documents", "history.duplicates", "history.corpus"):
        current = table(name)
        for partition in current.partitions():
            state = current.partition_state(partition)
            found[name, partition["crawl"]] = (state.key, state.snapshot_id)
    return found


def expected():
    """How many texts each crawl contributes when the copy of the oldest crawl wins."""
    seen, counts = set(), Counter()
    for crawl in (OLD, MIDDLE, NEW):
        mine = set(range(*PAGES[crawl])) - seen
        counts[crawl] = len(mine)
        seen |= mine
    return counts


def finish(plan, shards):
    """Runs all stages after planning, as the tasks of a cleared run do."""
    for stage in ("ingest", "clean", "refine_documents", "refine_chunks", "score", "assemble"):
        if stage == "assemble":
            chain.select(plan)
        reports = [chain.run_shard(plan, stage, shard) for shard in shards]
        chain.commit(plan, stage)
        if stage == "clean":
            chain.deduplicate(plan)
        if stage == "ingest":
            assert [report["skipped"] for report in reports] == [True, False], "the shard that was done is found"
    chain.validate(plan)
    return chain.publish(plan)


def test_a_crawl_that_failed_between_two_published_ones_goes_on_where_it_stopped(project, tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    recipe = load_recipe(project[0] / "dags" / "recipes" / "history.yaml")
    for crawl in (OLD, NEW):
        refresh(recipe, crawl, None, lambda _: None)
    values = recipe.model_dump(mode="json")
    made = chain.plan(values, MIDDLE, "run")
    plan, shards = made["plan"], made["shards"]
    chain.run_shard(plan, "ingest", shards[0])
    with pytest.raises(PermanentDataError, match=f"{MIDDLE}-00001.warc.gz"):
        chain.run_shard(plan, "ingest", shards[1])
    before = commits()

    (tmp_path / "kept.warc.gz").rename(project[1])
    outcome = finish(plan, shards)
    assert outcome["retracted"] == {NEW: 5}, "the newer crawl gives its copies back"
    assert published() == expected()
    after = commits()
    assert {place for place in before if after[place] != before[place]} == {("history.corpus", NEW)}

    assert all(chain.plan(values, crawl, "again")["already_published"] for crawl in (OLD, MIDDLE, NEW))
    assert commits() == after, "nothing was done twice"
