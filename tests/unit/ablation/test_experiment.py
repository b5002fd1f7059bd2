"""The steps: what is done is not done again, arms are nested and equal after retries, stages and checkpoints work."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpusmill.ablation import experiment
from corpusmill.ablation.arms import run_of
from corpusmill.ablation.corpus import corpus_of
from corpusmill.ablation.pool import read_part, read_units
from corpusmill.errors import ConfigError, PermanentDataError

GPT = {"kind": "gpt", "preset": "test", "steps": 6, "batch_size": 4, "evaluate_every": 2}


def silent(_line):
    pass


def results(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("result.json")}


@pytest.mark.slow
def test_an_experiment_is_done_once_and_a_new_arm_costs_itself_alone(recipe, tmp_path):
    out = str(tmp_path / "out")
    first = experiment.ablate(recipe(), out, silent)
    assert (first["n_runs"], first["n_missing"]) == (3, 0)
    before = results(out)
    files = {path: path.stat().st_mtime_ns for path in Path(out).rglob("*.parquet")}
    report = json.loads(Path(first["json"]).read_text())
    again = experiment.ablate(recipe(random=[0.5, 0.25]), out, silent)
    after = results(out)
    assert again["n_runs"] == 4
    assert {path: after[path] for path in before} == before
    assert len(after) == 4
    assert {path: path.stat().st_mtime_ns for path in files} == files
    labels = {row["arm"]["label"] for row in report["rows"]}
    assert labels == {"no pruning", "random 50%", "bits_per_byte bottom 50% by clean"}
    assert report["scores"][0]["cuts"][0]["name"] == "bottom 50%, below"
    assert sum(report["scores"][0]["histogram"]["counts"]) == len(read_units(next(Path(out).glob("pools/*"))))


def test_a_smaller_random_arm_is_part_of_a_larger_one_and_seeds_differ(recipe, tmp_path):
    made = experiment.prepare(recipe(random=[0.5, 0.25]), str(tmp_path), silent)
    plan = experiment.load_plan(made["plan"])
    arms = {run.arm.label: run.arm for run in experiment.runs_of(plan.recipe)}

    def texts(label, seed):
        corpus = corpus_of(arms[label], plan.recipe.pool, seed, plan.pool, None, tmp_path / "cache.parquet", silent)
        return set(corpus.texts)

    assert texts("random 25%", 0) < texts("random 50%", 0) < texts("no pruning", 0)
    assert texts("random 50%", 0) == texts("random 50%", 0) != texts("random 50%", 1)


@pytest.mark.slow
def test_an_arm_by_stages_keeps_what_the_stages_keep_and_is_stored(recipe, tmp_path):
    values = recipe(
        corpora={
            "rules": [{"clean": {"preset": "c4", "languages": None, "min_language_score": None}}],
            "refined": [
                {"refine_documents": {"backend": "labeller", "model": "bundled:line_labeller"}},
                {"refine_chunks": {"backend": "labeller", "model": "bundled:line_labeller"}},
            ],
        },
        references={}, scores=[], random=[],
    )  # fmt: skip
    made = experiment.prepare(values, str(tmp_path), silent)
    assert made["references"] == []
    runs = experiment.list_runs(made["plan"], silent)
    for label in runs:
        experiment.run_arm(made["plan"], label, silent)
    plan = experiment.load_plan(made["plan"])
    base = sum(len(document.text.encode()) for document in read_part(plan.pool, "pool"))
    found = {label: plan.result(run_of(plan.recipe, label))["corpus"] for label in runs}
    refined = found["refined | trigram | seed 0"]
    assert refined["purity"] > found["no pruning | trigram | seed 0"]["purity"]
    assert 0 < refined["n_bytes"] < base
    assert refined["kept_bytes"] == pytest.approx(refined["n_bytes"] / base)
    stored = list((tmp_path / "corpora").glob("*.parquet"))
    assert len(stored) == 2
    assert {pq.read_table(path).num_rows for path in stored} == {
        found[label]["n_units"] for label in runs if "pruning" not in label
    }


@pytest.mark.slow
def test_a_decoder_has_a_curve_and_costs_and_two_kinds_of_start(recipe, tmp_path):
    task = tmp_path / "task.csv"
    task.write_text("text,label\n" + "".join(f"{'warm' if i % 2 else 'cold'} day {i},{i % 2}\n" for i in range(30)))
    values = recipe(
        students={"new": GPT, "continued": {**GPT, "base": "bundled:reference_lm", "context": 64}},
        measures={"classification": {"days": {"train": str(task), "epochs": 1, "batch_size": 8}}},
        random=[], scores=[], references={},
    )  # fmt: skip
    report = json.loads(Path(experiment.ablate(values, str(tmp_path / "out"), silent)["json"]).read_text())
    by_student = {row["student"]: row for row in report["rows"]}
    new, continued = by_student["new"], by_student["continued"]
    assert new["costs"]["training_flops"] == 6 * new["n_parameters"] * 6 * 4 * 64
    assert new["epochs"] == pytest.approx(6 * 4 * 64 / new["n_tokens"])
    assert continued["test"]["clean"]["bits_per_byte"]["mean"] < new["test"]["clean"]["bits_per_byte"]["mean"]
    assert [point["step"] for point in report["curves"][0]["curve"]] == [2, 4, 6]
    assert 0 <= new["downstream"]["days"]["mean"] <= 1
    assert new["downstream"]["minimal_pairs"]["mean"] > 0


@pytest.mark.slow
def test_a_student_that_was_killed_goes_on_with_the_same_curve(recipe, tmp_path, monkeypatch):
    values = recipe(students={"gpt": {**GPT, "checkpoint_every": 2}}, random=[], scores=[], references={})

    class KilledError(Exception):
        pass

    def die_at_four(line):
        if "step 4 of" in line:
            raise KilledError

    (label,) = ["no pruning | gpt | seed 0"]
    whole = experiment.prepare(values, str(tmp_path / "whole"), silent)["plan"]
    experiment.run_arm(whole, label, silent)
    broken = experiment.prepare(values, str(tmp_path / "broken"), silent)["plan"]
    with pytest.raises(KilledError):
        experiment.run_arm(broken, label, die_at_four)
    experiment.run_arm(broken, label, silent)
    first, second = (experiment.load_plan(plan) for plan in (whole, broken))
    run = run_of(first.recipe, label)
    assert first.result(run) == second.result(run)


@pytest.mark.slow
def test_checkpoints_of_one_training_are_scored_apart_and_seeds_are_averaged(recipe, tmp_path):
    reference = {"corpus": "crawl", "preset": "test", "steps": 6, "n_vocab": 400, "batch_size": 4, "seeds": [0, 1]}
    values = recipe(
        references={"early": {**reference, "checkpoint": 2}, "late": reference},
        scores=[{"references": ["early", "late"], "columns": ["el2n"], "which": ["middle"]}],
        random=[],
    )
    plan = experiment.prepare(values, str(tmp_path), silent)["plan"]
    early = experiment.score(plan, "early", silent)
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")}
    late = experiment.score(plan, "late", silent)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")} == trained
    assert len(trained) == 2
    assert early["n_models"] == late["n_models"] == 2
    assert early["training_flops"] == late["training_flops"] > 0
    assert experiment.score(plan, "late", silent)["skipped"]
    loaded = experiment.load_plan(plan)
    tables = [pq.read_table(loaded.scores(name)) for name in ("early", "late")]
    assert tables[0]["el2n_sum"] != tables[1]["el2n_sum"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"students": {"s": {"kind": "gpt", "preset": "huge"}}}, ConfigError, r"students\.s\.preset='huge'"),
        ({"references": {"clean": {"preset": "huge"}}}, ConfigError, r"references\.clean\.preset='huge'"),
        ({"measures": {"classification": {"t": {"train": "/nowhere.tsv"}}}}, ConfigError, "names no file"),
    ],
)
def test_what_does_not_exist_is_told_before_anything_is_trained(recipe, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        experiment.prepare(recipe(**changes), str(tmp_path), silent)


def test_a_plan_or_a_run_that_is_not_there_is_told(recipe, tmp_path):
    with pytest.raises(PermanentDataError, match="is not a file"):
        experiment.run_arm(str(tmp_path / "none.json"), "x", silent)
    plan = experiment.prepare(recipe(references={}, scores=[]), str(tmp_path), silent)["plan"]
    with pytest.raises(ConfigError, match="has no run 'x'"):
        experiment.run_arm(plan, "x", silent)
