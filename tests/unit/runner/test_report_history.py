"""What ``ops.runs`` says of earlier runs, and reports of shards, on a lakehouse in a folder."""

import datetime as dt
import json

import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import PermanentDataError
from corpusmill.lakehouse.shards import RunToken
from corpusmill.report import StageReport
from corpusmill.runner import chain, shard_report
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.runner.records import record_uri, write_record
from corpusmill.runner.run_history import earlier_funnels, find_run, newest_published, past_runs, run_report
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import RUNS

DAY = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    chain.initialise(["demo"])
    return open_lakehouse()


def add_run(lake, crawl, epoch=1, *, run_id=None, state="success", published=10, recipe="demo", **report):
    run_id = run_id or f"run-{crawl}-{epoch}"
    stored = {"crawl": crawl, "funnel": [{"stage": "assemble", "documents_kept": published}], **report}
    row = {
        "recipe": recipe, "crawl": crawl, "epoch": epoch, "run_id": run_id, "state": state, "message": "",
        "config": "{}", "commit_keys": "{}", "report": json.dumps(stored), "n_published": published,
        "snapshot": "1", "tag": "t",
        "started_at": DAY, "ended_at": DAY, "versions": "{}",
    }  # fmt: skip
    partition = {"recipe": recipe, "crawl": crawl, "epoch": str(epoch)}
    token = RunToken(f"{recipe}/runs", f"{crawl}/{epoch}", run_id, 0, f"{run_id}{state}{published}")
    commit_rows(lake, "ops.runs", partition, rows_to_table([row], RUNS.schema), token)
    return row


def test_runs_are_read_anew_only_after_a_new_one(lake):
    assert past_runs(lake) == ()
    add_run(lake, "C-2024-10")
    first = past_runs(lake)
    assert [r.crawl for r in first] == ["C-2024-10"]
    assert past_runs(lake) is first
    add_run(lake, "C-2023-50")
    assert [r.crawl for r in past_runs(lake)] == ["C-2023-50", "C-2024-10"]


def test_a_run_is_found_by_its_recipe_and_id_alone(lake):
    add_run(lake, "C-2024-10", 1, run_id="a")
    add_run(lake, "C-2024-10", 2, run_id="a")
    assert find_run(lake, "demo", "a").epoch == 2  # a cleared run has two rows
    assert find_run(lake, "other", "a") is None
    assert find_run(lake, "demo", "b") is None


def test_earlier_funnels_are_the_crawl_before_and_the_run_before(lake):
    add_run(lake, "C-2023-50", published=5)
    add_run(lake, "C-2024-10", published=7)
    add_run(lake, "C-2024-18", 1, published=8)
    add_run(lake, "C-2024-18", 2, state="failed", published=0)
    found = earlier_funnels(lake, "demo", "C-2024-18", 3)
    assert [(f["what"], f["crawl"], f["epoch"]) for f in found] == [
        ("previous crawl", "C-2024-10", 1),
        ("earlier run", "C-2024-18", 1),
    ]
    assert found[0]["steps"] == [{"stage": "assemble", "documents_kept": 7}]
    assert earlier_funnels(lake, "demo", "C-2023-50", 1) == []


def test_only_published_crawls_count_newest_first(lake):
    add_run(lake, "C-2024-10")
    add_run(lake, "C-2024-18", state="failed")
    add_run(lake, "C-2024-22", published=0)
    add_run(lake, "C-2023-50")
    assert [r.crawl for r in newest_published(lake, "demo")] == ["C-2024-10", "C-2023-50"]


def test_an_old_run_keeps_its_figures_when_its_record_is_gone(lake):
    add_run(lake, "C-2024-10")
    (run,) = past_runs(lake)
    assert run_report(lake, run)["funnel"][0]["documents_kept"] == 10
    write_record(
        lake, record_uri(lake, "demo", "C-2024-10", "epoch-00001", "report.json"), {"funnel": [], "examples": []}
    )
    assert run_report(lake, run) == {"funnel": [], "examples": []}


@pytest.fixture
def plan(lake):
    keys = dict.fromkeys(("ingest", "clean", "refine_chunks", "score"), "k")
    return RunPlan(
        recipe={"name": "demo", "source": {"base": "bundled:crawls"}}, crawl="C-2024-10", run_id="r", epoch=1,
        base_location="/", extraction="x", shards=(Shard(name="00000", files=("a", "b")),), models={}, base=(),
        keys=keys, started_at="2024-03-01T00:00:00+00:00",
    )  # fmt: skip


def test_a_shard_that_ends_well_leaves_its_report(lake, plan):
    with shard_report.reported_shard(lake, plan, "clean", "00000") as reports:
        reports.append(StageReport(stage="clean", crawl="C-2024-10", shard="00000", documents_in=3, seconds=1.5))
    found = shard_report.find_shard_report(lake, plan, "clean", "00000")
    assert (found["state"], found["documents_in"], found["seconds"]) == ("success", 3, 1.5)
    assert (found["files"], found["n_files"], found["worst"], found["quarantine"]) == (["a", "b"], 2, [], [])
    assert shard_report.find_shard_report(lake, plan, "clean", "00001") is None


def test_a_shard_that_fails_leaves_its_message_and_the_error_goes_on(lake, plan):
    with (
        pytest.raises(PermanentDataError, match="bad input"),
        shard_report.reported_shard(lake, plan, "ingest", "00000"),
    ):
        raise PermanentDataError("bad input " + "x" * 100_000)
    found = shard_report.find_shard_report(lake, plan, "ingest", "00000")
    assert (found["state"], found["error"], found["retry"]) == ("failed", "PermanentDataError", "permanent")
    assert found["message"].startswith("bad input xxx")
    assert len(found["message"]) == shard_report.MAX_MESSAGE


def test_a_report_that_cannot_be_stored_does_not_fail_the_shard(lake, plan, caplog):
    with shard_report.reported_shard(lake, plan, "clean", "no such shard") as reports:
        reports.append(StageReport(stage="clean", crawl="C-2024-10"))
    assert "no report of shard no such shard of clean could be stored" in caplog.text
