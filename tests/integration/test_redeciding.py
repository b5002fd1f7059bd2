"""A crawl is decided again under other thresholds: the tables of a fresh run, from what is stored, without models."""

import json
import shutil

import pytest

from corpusmill.errors import ConfigError
from corpusmill.modeling.load import model_folder
from corpusmill.runner import chain
from corpusmill.runner.dry_run import dry_run, forecast_lines
from corpusmill.runner.refresh import refresh
from corpusmill.runner.stored_results import cache_path, checkpoints_path

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CRAWL = "T-2024-10"
TABLES = ("documents", "duplicates", "document_refinements", "scores", "corpus")
SCRIPT = {"containing": {"Nobody measured more": "drop_doc()"}, "default": "keep_doc()"}
RULES = {"preset": "fineweb", "overrides": {"gopher_quality.short_doc": 50.0}}
MIDDLE = {"preset": "fineweb", "overrides": {"gopher_quality.short_doc": 228.5}}
TIGHT = {"preset": "fineweb", "overrides": {"gopher_quality.short_doc": 230.5}}


@pytest.fixture
def parts(tmp_path):
    """Parts of a recipe with a document refiner and a scorer, each in a folder of its own that can be taken away."""
    shutil.copytree(model_folder("bundled:reference_lm"), tmp_path / "reference")
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "script.json").write_text(json.dumps(SCRIPT))
    return {
        "refine_documents": {"backend": "scripted", "model": str(tmp_path / "scripted")},
        "score": {"model": str(tmp_path / "reference"), "device": "cpu", "context": 128, "metrics": ["perplexity"]},
        "select": {"column": "mean_nll", "fraction": "4/5", "which": "bottom"},
    }


def told(report, stage):
    (step,) = [step for step in report["funnel"] if step["stage"] == stage]
    return step["metrics"]


def contents(name):
    lake = chain.open_lakehouse()
    tables = {t: lake.table(f"{name}.{t}").scan({"crawl": CRAWL}).sort_by("doc_id").to_pylist() for t in TABLES}
    for row in tables["corpus"]:
        del row["recipe_fingerprint"]  # it covers the recipe's name
    for rows in tables.values():
        for row in rows:  # a score that is computed beside other texts differs by rounding
            row.update({k: float(f"{v:.4g}") for k, v in row.items() if isinstance(v, float)})
    return tables


def run(recipe, name, rules, parts):
    return refresh(recipe(name, rules=rules, **parts), CRAWL, None, lambda line: None)


def test_tightening_and_loosening_give_the_tables_of_a_fresh_run(home, recipe, parts):
    named = {"wide": RULES, "middle": MIDDLE, "narrow": TIGHT}
    fresh = {name: run(recipe, name, rules, parts) for name, rules in named.items()}
    kept = {name: report["funnel"][1]["documents_kept"] for name, report in fresh.items()}
    assert 0 < kept["narrow"] < kept["middle"] < kept["wide"]
    run(recipe, "again", RULES, parts)
    checkpoints_path().unlink(missing_ok=True)

    tightened = run(recipe, "again", TIGHT, parts)
    assert contents("again") == contents("narrow")
    assert told(tightened, "clean")["n_measured"] == 0
    for stage in ("refine_documents", "score"):
        assert told(tightened, stage)["model_calls"] == 0, stage

    checkpoints_path().unlink(missing_ok=True)
    cache_path().unlink(missing_ok=True)
    loosened = run(recipe, "again", MIDDLE, parts)
    assert contents("again") == contents("middle")
    admitted = kept["middle"] - kept["narrow"]
    assert told(loosened, "clean")["n_measured"] == admitted
    assert told(loosened, "refine_documents")["model_calls"] == admitted
    assert 0 < told(loosened, "score")["model_calls"] <= admitted
    assert told(loosened, "score")["reused_stored"] > 0


def test_another_selection_computes_no_score(home, recipe, parts):
    run(recipe, "again", RULES, parts)
    other = {**parts, "select": {**parts["select"], "fraction": "1/5"}}
    report = run(recipe, "again", RULES, other)
    assert report["published"] > 0
    assert {step["stage"] for step in report["funnel"]} >= {"score", "select"}
    lake = chain.open_lakehouse()
    assert len(lake.table("again.scores").iceberg.history()) == 1, "scores were not written again"


def test_another_model_or_another_page_is_computed_anew(home, recipe, parts):
    run(recipe, "again", RULES, parts)
    wider = {**RULES, "languages": ["en", "de"]}
    report = run(recipe, "again", wider, {**parts, "score": {**parts["score"], "metrics": ["perplexity", "el2n"]}})
    assert told(report, "clean")["n_measured"] == report["funnel"][1]["documents_in"]
    assert told(report, "score")["reused_stored"] == 0


def test_stored_scores_need_no_model(home, recipe, parts, monkeypatch):
    run(recipe, "again", RULES, parts)
    made = chain.plan(recipe("again", rules=TIGHT, **parts).model_dump(mode="json"), CRAWL, "tighter")
    for stage in ("ingest", "clean"):
        _stage(made, stage)
    chain.deduplicate(made["plan"])
    _stage(made, "refine_documents")
    _stage(made, "refine_chunks")
    shutil.rmtree(parts["score"]["model"])
    assert _stage(made, "score")["metrics"]["model_calls"] == 0


def _stage(made, stage):
    for shard in made["shards"]:
        chain.run_shard(made["plan"], stage, shard)
    return chain.commit(made["plan"], stage)


def dry(recipe, name, rules, parts, **changes):
    return dry_run(chain.open_lakehouse(), recipe(name, rules=rules, **{**parts, **changes}), CRAWL)


def by_stage(found):
    return {step["stage"]: step for step in found["stages"]}


def test_a_dry_run_says_what_the_run_then_does(home, recipe, parts):
    first = run(recipe, "again", TIGHT, parts)
    lake = chain.open_lakehouse()
    before = {name: lake.table(f"again.{name}").snapshot_id() for name in TABLES}
    same = dry(recipe, "again", TIGHT, parts)
    assert (same["changes"], same["model_documents"]) == (False, 0)

    selection = {**parts["select"], "fraction": "1/2"}
    other = by_stage(dry(recipe, "again", TIGHT, parts, select=selection))["select"]
    looser = dry(recipe, "again", MIDDLE, parts)
    assert {name: lake.table(f"again.{name}").snapshot_id() for name in TABLES} == before
    assert other["n_now"] == first["published"]
    assert by_stage(looser)["clean"]["n_now"] == first["funnel"][1]["documents_kept"]
    for line in forecast_lines(looser) + forecast_lines(same):
        assert len(line) < 120

    cache_path().unlink(missing_ok=True)
    checkpoints_path().unlink(missing_ok=True)
    halved = run(recipe, "again", TIGHT, {**parts, "select": selection})
    assert other["n_least"] == other["n_most"] == halved["published"]
    loosened = run(recipe, "again", MIDDLE, parts)
    found = {step["stage"]: step for step in loosened["funnel"]}
    forecast = by_stage(looser)
    assert forecast["clean"]["n_most"] == forecast["clean"]["n_least"] == found["clean"]["documents_kept"]
    assert forecast["clean"]["n_computed"] == found["clean"]["metrics"]["n_measured"]
    assert forecast["refine_documents"]["n_computed"] == found["refine_documents"]["metrics"]["model_calls"]
    assert found["score"]["metrics"]["model_calls"] <= forecast["score"]["n_computed"] < found["score"]["documents_in"]
    for stage in ("refine_documents", "score"):
        assert forecast[stage]["n_least"] <= found[stage]["documents_kept"] <= forecast[stage]["n_most"], stage
        assert forecast[stage]["seconds"] is not None
    assert looser["model_documents"] == sum(forecast[s]["n_computed"] for s in ("refine_documents", "score"))


def test_a_dry_run_needs_a_run_to_compare_with(home, recipe, parts):
    chain.initialise(["again"])
    with pytest.raises(ConfigError, match="has not been run"):
        dry(recipe, "again", RULES, parts)
    run(recipe, "again", RULES, parts)
    with pytest.raises(ConfigError, match="measured again"):
        dry(recipe, "again", {**RULES, "languages": ["de"]}, parts)
