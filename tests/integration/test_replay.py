"""Stored programs instead of models: replayed, decided again, found in other crawls; with the model out of reach."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError, ModelError
from corpusmill.lakehouse.shards import RunToken
from corpusmill.modeling.load import model_folder
from corpusmill.runner import chain
from corpusmill.runner.plan import load_plan
from corpusmill.runner.refresh import refresh
from corpusmill.runner.replay import replay
from corpusmill.runner.stored_results import cache_path
from corpusmill.runner.whole_crawl import commit_rows

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OLD, NEW = "T-2024-10", "T-2024-33"
STAGES = ("refine_documents", "refine_chunks")
TABLES = ("document_refinements", "chunk_refinements")
SCRIPT = {
    "containing": {
        "violin": 'normalize(source_str="The", target_str="A")\nremove_lines(start=x, end=1)',
        "quarry": "remove_lines(start=0, end=5)\nremove_lines(start=0, end=5)",
        "needle": "remove_lines(start=2, end=9)\nremove_lines(start=",
        "museum": "drop_doc()",
    },
    "default": "remove_lines(start=3, end=4)",
}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "script.json").write_text(json.dumps(SCRIPT))
    return folder


def scripted(folder: Path, documents=(), **chunks) -> dict:
    base = {"backend": "scripted", "model": str(folder)}
    return {"refine_documents": {**base, **dict(documents)}, "refine_chunks": {**base, "window_tokens": 60, **chunks}}


def planned(recipe, crawl: str = OLD) -> dict:
    """Plans a run and takes it to where refinement starts."""
    chain.initialise([recipe.name])
    made = chain.plan(recipe.model_dump(mode="json"), crawl, f"run of {recipe.fingerprint()}")
    for stage in ("ingest", "clean"):
        for shard in made["shards"]:
            chain.run_shard(made["plan"], stage, shard)
        chain.commit(made["plan"], stage)
    chain.deduplicate(made["plan"])
    return made


def refined(made: dict) -> dict[str, dict]:
    """Runs both refinement stages; returns their reports."""
    reports = {}
    for stage in STAGES:
        for shard in made["shards"]:
            chain.run_shard(made["plan"], stage, shard)
        reports[stage] = chain.commit(made["plan"], stage)
    return reports


def tables(recipe: str, crawl: str = OLD) -> dict[str, list[dict]]:
    lake = chain.open_lakehouse()
    return {n: lake.table(f"{recipe}.{n}").scan({"crawl": crawl}).sort_by("doc_id").to_pylist() for n in TABLES}


def sources(reports: dict[str, dict]) -> dict[str, tuple[int, int, int]]:
    names = ("reused_stored", "reused_cache", "model_calls")
    return {stage: tuple(int(reports[stage]["metrics"][n]) for n in names) for stage in STAGES}


POLICIES = {
    "tighter gates": {"min_words": 120, "max_errors": 1, "max_removed": 0.3},
    "compat": {"mode": "compat", "stop_loops": True},
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_another_policy_gives_the_tables_of_a_fresh_run_without_the_model(home, recipe, script, policy):
    made = planned(recipe("fresh", **scripted(script, {"reuse_stored": False}, reuse_stored=False, **policy)))
    calls = sources(refined(made))["refine_chunks"]
    assert calls[:2] == (0, 0)
    assert not cache_path().exists(), "a run without reuse left a cache"
    assert refined(planned(recipe("again", **scripted(script))))["refine_chunks"]["metrics"]["model_calls"] == calls[2]
    cache_path().unlink()
    before = tables("again")
    again = planned(recipe("again", **scripted(script, **policy)))
    shutil.rmtree(script)
    found = sources(refined(again))
    assert found["refine_chunks"] == (calls[2], 0, 0)
    assert tables("again") == tables("fresh")
    assert tables("again")["chunk_refinements"] != before["chunk_refinements"]


def test_a_threshold_is_moved_over_stored_margins_without_the_model(home, recipe, tmp_path):
    folder = tmp_path / "labeller"
    shutil.copytree(model_folder("bundled:line_labeller"), folder)
    base = {"backend": "labeller", "model": str(folder)}

    def parts(**documents) -> dict:
        return {"refine_documents": {**base, **documents}, "refine_chunks": base}

    refined(planned(recipe("again", **parts())))
    margins = sorted(row["margin"] for row in tables("again")["document_refinements"])
    middle = {"threshold": margins[len(margins) // 2]}
    off = {"reuse_stored": False}
    refined(planned(recipe("fresh", **{**parts(**middle, **off), "refine_chunks": {**base, **off}})))
    moved = planned(recipe("again", **parts(**middle)))
    (folder / "model.safetensors").write_bytes(b"poison")
    assert sources(refined(moved))["refine_documents"] == (20, 0, 0)
    assert tables("again") == tables("fresh")
    assert 0 < sum(row["kept"] for row in tables("again")["document_refinements"]) < 20
    shutil.copytree(model_folder("bundled:line_labeller"), folder, dirs_exist_ok=True)
    loosened = planned(recipe("again", **parts(threshold=1.0)))
    shutil.rmtree(folder)
    found = sources(refined(loosened))
    assert found["refine_documents"] == (20, 0, 0)
    assert all(row["kept"] for row in tables("again")["document_refinements"])
    assert found["refine_chunks"][2] == 0, "programs of documents that are admitted again come from the cache"
    assert min(found["refine_chunks"][:2]) > 0


def test_another_output_setting_and_another_model_reach_the_model(home, recipe, script):
    refined(planned(recipe(**scripted(script))))
    n = len(tables("tiny")["document_refinements"])
    found = sources(refined(planned(recipe(**scripted(script, {"max_new_tokens": 9}, max_new_tokens=9)))))
    assert found["refine_documents"] == (0, 0, n)
    assert found["refine_chunks"][:2] == (0, 0)
    (script / "script.json").write_text(json.dumps({**SCRIPT, "default": "keep_chunk()"}))
    found = sources(refined(planned(recipe(**scripted(script, {"max_new_tokens": 9}, max_new_tokens=9)))))
    assert found["refine_documents"] == (0, 0, n)
    assert found["refine_chunks"][:2] == (0, 0)


def test_the_same_texts_in_another_crawl_reach_no_model(home, recipe, script):
    apart = {"deduplication": {"across_crawls": False}}
    refined(planned(recipe(**scripted(script), **apart)))
    found = sources(refined(planned(recipe(**scripted(script), **apart), NEW)))
    assert found["refine_documents"] == (0, 6, 14)
    assert found["refine_chunks"][0] == 0
    assert found["refine_chunks"][1] > 0
    fresh = scripted(script, {"reuse_stored": False}, reuse_stored=False)
    assert sources(refined(planned(recipe("fresh", **fresh, **apart), NEW)))["refine_documents"] == (0, 0, 20)
    assert tables("tiny", NEW) == tables("fresh", NEW)


def test_a_model_that_is_gone_and_needed_stops_the_shard_with_its_name(home, recipe, script):
    made = planned(recipe(**scripted(script)))
    shutil.rmtree(script)
    with pytest.raises(ModelError, match="scripted"):
        chain.run_shard(made["plan"], "refine_documents", made["shards"][0])


def test_another_shard_count_finds_the_stored_outputs(home, recipe, script):
    refined(planned(recipe(**scripted(script))))
    cache_path().unlink()
    whole = recipe(**scripted(script, min_words=100), shards={"max_shards": 1})
    found = sources(refined(planned(whole)))
    assert found["refine_chunks"][1:] == (0, 0)


def snapshots() -> dict[str, int | None]:
    lake = chain.open_lakehouse()
    return {name: lake.table(f"tiny.{name}").snapshot_id() for name in TABLES}


def test_a_replay_without_the_model_gives_the_stored_tables(home, recipe, script):
    refined(planned(recipe(**scripted(script))))
    shutil.rmtree(script)
    before = snapshots()
    found = replay(chain.open_lakehouse(), "tiny", OLD)
    n_chunk_rows = len(tables("tiny")["chunk_refinements"])
    assert (found["n_documents"], found["n_equal"]) == (20 + n_chunk_rows, 20 + n_chunk_rows)
    for stage in STAGES:
        assert found[stage]["differences"] == []
        assert found[stage]["old"] == found[stage]["new"]
    assert sum(found["refine_chunks"]["old"].values()) == n_chunk_rows
    assert found["refine_chunks"]["old"]["edited"] > 0
    assert json.loads(json.dumps(found)) == found
    assert snapshots() == before


def test_a_replay_names_rows_whose_text_reason_or_input_was_changed(home, recipe, script):
    made = planned(recipe(**scripted(script)))
    refined(made)
    lake = chain.open_lakehouse()
    rows = tables("tiny")["chunk_refinements"]
    edited = [row for row in rows if row["reason"] == "edited"]
    edited[0]["text"] += "\nsomething that no program wrote"
    edited[1]["programs"][0]["output"] = "keep_chunk()"
    edited[2]["text_digest"] = "0" * 32
    token = RunToken("tiny", OLD, "tampered", load_plan(lake, made["plan"]).epoch, "tampered")
    schema = lake.table("tiny.chunk_refinements").spec.schema
    commit_rows(lake, "tiny.chunk_refinements", {"crawl": OLD}, rows_to_table(rows, schema), token)
    found = replay(lake, "tiny", OLD)["refine_chunks"]
    assert found["n_documents"] - found["n_equal"] == 3
    assert found["n_text_missing"] == 1
    differences = {difference["doc_id"]: difference for difference in found["differences"]}
    assert set(differences) == {edited[0]["doc_id"], edited[1]["doc_id"]}
    assert differences[edited[0]["doc_id"]]["changed"] == ["text"]
    assert differences[edited[0]["doc_id"]]["diff"] == ["-something that no program wrote"]
    assert "operations" in differences[edited[1]["doc_id"]]["changed"]


def test_a_dry_run_says_what_a_run_with_the_policy_then_does(home, recipe, script, tmp_path):
    made = planned(recipe(**scripted(script)))
    refined(made)
    before = snapshots()
    policy = {"refine_chunks": {"min_words": 130, "max_errors": 1}, "refine_documents": {"mode": "compat"}}
    found = replay(chain.open_lakehouse(), "tiny", OLD, policy)
    assert snapshots() == before
    refined(planned(recipe(**scripted(script, {"mode": "compat"}, min_words=130, max_errors=1))))
    rows = tables("tiny")["chunk_refinements"]
    assert found["refine_chunks"]["new"] == dict(
        sorted(
            Counter("edited" if r["reason"] == "edited" else "kept" if r["kept"] else "dropped" for r in rows).items()
        )
    )
    assert found["refine_chunks"]["old"] != found["refine_chunks"]["new"]
    sample = found["refine_chunks"]["differences"][0]
    assert sample["replayed"]["reason"] == {r["doc_id"]: r["reason"] for r in rows}[sample["doc_id"]]


def test_a_dry_run_counts_the_documents_that_would_need_the_model(home, recipe):
    base = {"backend": "labeller", "model": "bundled:line_labeller"}
    refined(planned(recipe(refine_documents=base, refine_chunks=base)))
    rows = tables("tiny")["document_refinements"]
    middle = sorted(row["margin"] for row in rows)[10]
    lake = chain.open_lakehouse()
    looser = replay(lake, "tiny", OLD, {"refine_documents": {"threshold": 1.0}})
    n_dropped = sum(not row["kept"] for row in rows)
    assert looser["refine_chunks"]["n_needs_model"] == n_dropped
    tighter = replay(lake, "tiny", OLD, {"refine_documents": {"threshold": middle}})
    kept_now = sum(row["kept"] and row["margin"] < middle for row in rows)
    assert tighter["refine_chunks"]["n_not_reached"] == 20 - n_dropped - kept_now > 0
    assert tighter["refine_documents"]["differences"][0]["replayed"]["reason"] == "dropped_model"


def test_a_policy_holds_execution_policy_only(home, recipe, script):
    refined(planned(recipe(**scripted(script))))
    wrong = (
        ({"refine_chunks": {"window_tokens": 9}}, "window_tokens"),
        ({"refine_chunks": {"stop_loops": True}}, "stop_loops"),
        ({"refine_chunks": ["min_words"]}, "expected a mapping"),
        ({"score": {}}, "score"),
        ({"refine_chunks": {"min_words": "many"}}, "min_words='many'"),
    )
    for policy, message in wrong:
        with pytest.raises(ConfigError, match=message):
            replay(chain.open_lakehouse(), "tiny", OLD, policy)
    with pytest.raises(ConfigError, match="no stored programs"):
        replay(chain.open_lakehouse(), "tiny", NEW)


def test_a_refiner_that_fails_is_a_warning_of_a_run_that_publishes(home, recipe, script):
    (script / "script.json").write_text(json.dumps({"default": "I would rather not"}))
    parts = {"refine_chunks": {"backend": "scripted", "model": str(script), "alarms": {"min_outputs": 1}}}
    lines: list[str] = []
    report = refresh(recipe(**parts), OLD, None, lines.append)
    assert report["published"] > 0
    (warning,) = [line for line in report["validation"]["warnings"] if "refine_chunks" in line]
    assert "refine_chunks.failed_share" in warning
    assert "observed 1, expected at most 0.01" in warning
    (step,) = [step for step in report["funnel"] if step["stage"] == "refine_chunks"]
    assert step["shares"]["failed_share"] == 1.0
    assert report["validation"]["metrics"]["refine_chunks.failed_share"] == 1.0
    assert [line for line in lines if line.startswith("alarm: ") and "failed_share" in line]
    assert [line for line in lines if "refine_chunks T-2024-10/00000: kept_share 1" in line]
