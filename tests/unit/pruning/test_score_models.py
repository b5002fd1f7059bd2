"""Ensembles, excess loss, top-k hits and thresholds through the stage."""

import json
import shutil

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from corpusmill.errors import ConfigError, ModelError
from corpusmill.pruning.config import FurtherModel, ScoringConfig
from corpusmill.pruning.scoring import ScoreStage


def texts_of(repeated_text):
    return [repeated_text, repeated_text[7:90], "grain of the old river and the long mill asks nobody how"]


def stage_for(folder, **settings):
    return ScoreStage(ScoringConfig.load({"model": str(folder), "device": "cpu", **settings}))


def rows_of(folder, texts, **settings):
    return scored(stage_for(folder, **settings), texts)


def scored(stage, texts):
    n = len(texts)
    batch = pa.table(
        {
            "crawl": ["C-1"] * n,
            "doc_id": [f"d{i}" for i in range(n)],
            "warc_file": ["w"] * n,
            "language": ["en"] * n,
            "text": texts,
        }
    )
    return stage.process(batch).kept


@pytest.fixture(scope="module")
def checkpoints(tiny_folder, tmp_path_factory):
    """Two more models with the same tokenizer: the trained weights with noise, as other checkpoints would be."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("checkpoints") / f"seed{seed}"
        shutil.copytree(tiny_folder, folder)
        generator = torch.Generator().manual_seed(seed)
        weights = load_file(folder / "model.safetensors")
        noisy = {k: v + 0.02 * torch.randn(v.shape, generator=generator) for k, v in weights.items()}
        save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(str(folder))
    return folders


def test_an_ensemble_averages_the_scores_of_its_models(tiny_folder, checkpoints, repeated_text):
    texts = texts_of(repeated_text)
    alone = [rows_of(folder, texts) for folder in (str(tiny_folder), *checkpoints)]
    together = rows_of(tiny_folder, texts, ensemble=checkpoints)
    means = [sum(values) / 3 for values in zip(*(t.column("el2n_sum").to_pylist() for t in alone), strict=True)]
    assert together.column("el2n_sum").to_pylist() == pytest.approx(means, rel=1e-6)
    assert together.column("nll_sum").to_pylist() == alone[0].column("nll_sum").to_pylist(), "NLL is the main model's"
    assert len({tuple(t.column("el2n_sum").to_pylist()) for t in alone}) == 3, "the models must differ"
    keys = {t.column("score_key")[0].as_py() for t in (*alone, together)}
    assert len(keys) == 4


def test_excess_loss_is_the_difference_of_two_models_sums(tiny_folder, checkpoints, repeated_text):
    texts = texts_of(repeated_text)
    ours, theirs = (rows_of(f, texts).column("nll_sum").to_pylist() for f in (tiny_folder, checkpoints[0]))
    rows = rows_of(tiny_folder, texts, baseline=checkpoints[0])
    expected = [a - b for a, b in zip(ours, theirs, strict=True)]
    assert rows.column("excess_nll_sum").to_pylist() == pytest.approx(expected, rel=1e-4)
    assert rows_of(tiny_folder, texts).column("excess_nll_sum").null_count == len(texts)


def test_models_of_another_tokenizer_are_refused_with_both_digests(tiny_folder, tiny_tokenizer, checkpoints, tmp_path):
    other = shutil.copytree(checkpoints[0], tmp_path / "other")
    settings = json.loads((other / "tokenizer.json").read_text())
    settings["model"]["merges"] = settings["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(settings))
    for role in ({"ensemble": [str(other)]}, {"baseline": str(other)}):
        with pytest.raises(ConfigError, match=rf"has tokenizer '[0-9a-f]{{64}}'.* '{tiny_tokenizer.sha256}'"):
            rows_of(tiny_folder, ["a text"], **role)


def test_further_models_are_checked_against_their_digest_and_their_metric(tiny_folder, checkpoints):
    with pytest.raises(ModelError, match="expected 'beef'"):
        rows_of(tiny_folder, ["a text"], ensemble=[{"model": checkpoints[0], "sha256": "beef"}])
    with pytest.raises(ConfigError, match="needs 'el2n' among metrics"):
        ScoringConfig.load({"ensemble": ["x"], "metrics": ["perplexity"]})
    with pytest.raises(ConfigError, match="needs 'perplexity' among metrics"):
        ScoringConfig.load({"baseline": "x", "metrics": ["el2n"]})
    with pytest.raises(ConfigError, match="needs 'memorization' among metrics"):
        ScoringConfig.load({"memorization_threshold": 0.5})
    assert ScoringConfig.load({"ensemble": ["a", {"model": "b", "revision": "step1000"}]}).ensemble == (
        FurtherModel(model="a"),
        FurtherModel(model="b", revision="step1000"),
    )


def test_top_k_hits_grow_with_k_and_are_the_greedy_hits_for_one(tiny_folder, repeated_text):
    texts = texts_of(repeated_text)
    by_k = {k: rows_of(tiny_folder, texts, metrics=("top_k",), top_k=k) for k in (1, 5, 320)}
    counts = {k: table.column("top_k_hits").to_pylist() for k, table in by_k.items()}
    assert counts[1] == by_k[1].column("hits").to_pylist()
    assert all(a <= b for a, b in zip(counts[1], counts[5], strict=True))
    assert sum(counts[1]) < sum(counts[5])
    assert counts[320] == by_k[320].column("n_scored").to_pylist()
    assert len({table.column("score_key")[0].as_py() for table in by_k.values()}) == 3
    assert by_k[5].column("nll_sum").null_count == len(texts)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.95, 1.0])
def test_a_threshold_is_answered_as_by_the_exact_scores(tiny_folder, repeated_text, threshold):
    texts = [repeated_text[9 * i :] for i in range(4)] + ["grain river " * 30, "asks nobody how " * 20]
    settings = {"metrics": ("memorization",), "mem_prompt": 12, "mem_continuation": 16}
    exact = rows_of(tiny_folder, texts, **settings).column("memorization").to_pylist()
    stage = stage_for(tiny_folder, memorization_threshold=threshold, **settings)
    asked = scored(stage, texts)
    assert asked.column("memorized").to_pylist() == [score >= threshold for score in exact]
    known = [(a, b) for a, b in zip(asked.column("memorization").to_pylist(), exact, strict=True) if a is not None]
    assert all(a == b for a, b in known)
    one_by_one = [scored(stage, [text]).drop_columns(["doc_id"]) for text in texts]
    assert pa.concat_tables(one_by_one).to_pylist() == asked.drop_columns(["doc_id"]).to_pylist()


def test_memorization_alone_reads_no_more_than_it_needs(tiny_folder, repeated_text):
    settings = {"metrics": ("memorization",), "mem_prompt": 12, "mem_continuation": 16}
    full = {**settings, "metrics": ("memorization", "perplexity")}
    texts = [*texts_of(repeated_text), "short"]
    alone, beside = rows_of(tiny_folder, texts, **settings), rows_of(tiny_folder, texts, **full)
    same = ("memorization", "first_mismatch", "prefix_match", "n_tokens")
    assert alone.select(same).to_pylist() == beside.select(same).to_pylist()
    rows = alone.to_pylist()
    assert [row["n_scored"] for row in rows] == [16 if row["n_tokens"] >= 28 else 0 for row in rows]
    assert all(row["hits"] is None and row["nll_sum"] is None for row in rows)
    assert rows[-1]["memorization"] is None
    for row in rows[:-1]:
        if row["first_mismatch"] is not None:
            assert row["prefix_match"] == row["first_mismatch"] / 16
