"""Stored outputs instead of models: other policies, other crawls, other shards; with the model out of reach."""

import json
import shutil
from pathlib import Path

import pytest

from corpusmill.errors import ModelError
from corpusmill.modeling.load import model_folder
from corpusmill.runner import chain
from corpusmill.runner.stored_programs import cache_path

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
