import json
import math
import shutil

import pyarrow as pa
import pytest
import torch

from corpusmill.errors import ConfigError, ModelError
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.scoring import TOO_FEW_TOKENS, ScoreStage
from corpusmill.pruning.window_scorer import WindowScorer
from corpusmill.schema import SCORES
from corpusmill.stage import Stage


def batch_of(texts):
    n = len(texts)
    return pa.table(
        {
            "crawl": ["C-1"] * n,
            "doc_id": [f"d{i}" for i in range(n)],
            "warc_file": ["w"] * n,
            "language": ["en"] * n,
            "text": pa.array(texts, pa.large_string()),
        }
    )


def stage_for(folder, **settings):
    return ScoreStage(ScoringConfig(model=str(folder), device="cpu", **settings))


TEXTS = [
    "the old mill grinds the grain of the whole valley",
    "nobody asks how long the river will carry it and the grain of the valley grinds the old mill. " * 9,
    "",
    "x",
    None,
    "Ünïcödé — 日本語 <|endoftext|> 🦀 text",
]


def test_every_document_gets_a_row_and_only_a_failing_one_is_removed(tiny_folder):
    stage = stage_for(tiny_folder)
    assert isinstance(stage, Stage)
    out = stage.process(batch_of(TEXTS))
    assert out.kept.schema == out.removed.schema == SCORES.schema
    assert out.kept.column("doc_id").to_pylist() == ["d0", "d1", "d2", "d3", "d5"]
    (failed,) = out.removed.to_pylist()
    assert (failed["doc_id"], failed["skipped_reason"], failed["nll_sum"]) == ("d4", "error.null_text", None)
    kept = {row["doc_id"]: row for row in out.kept.to_pylist()}
    for short in ("d2", "d3"):
        assert kept[short]["skipped_reason"] == TOO_FEW_TOKENS
        assert kept[short]["nll_sum"] is None
        assert kept[short]["n_scored"] == 0
    assert kept["d5"]["n_bytes"] == len(TEXTS[5].encode())
    assert {row["score_key"] for row in kept.values()} == {stage.score_key}
    assert out.metrics["n_unscored_documents"] == 3


def test_the_sums_of_a_long_document_are_those_of_its_windows(tiny_folder, tiny_model, tiny_tokenizer):
    text = TEXTS[1]
    ids = tiny_tokenizer.encode_batch([text])[0]
    assert len(ids) > 2 * 64
    (row,) = stage_for(tiny_folder).process(batch_of([text])).kept.to_pylist()
    total = n = 0
    for start in range(0, len(ids), 64):
        window = torch.tensor([ids[start : start + 64]])
        if window.shape[1] < 2:
            continue
        with torch.inference_mode():
            logits = tiny_model(input_ids=window).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
        n += window.shape[1] - 1
    assert row["n_scored"] == n
    assert row["n_tokens"] == len(ids)
    assert row["nll_sum"] == pytest.approx(total, rel=1e-5)


def test_an_end_of_document_prefix_scores_every_token(tiny_folder):
    text = TEXTS[0]
    (plain,) = stage_for(tiny_folder).process(batch_of([text])).kept.to_pylist()
    (prefixed,) = stage_for(tiny_folder, prefix="eod").process(batch_of([text])).kept.to_pylist()
    assert plain["n_scored"] == plain["n_tokens"] - 1
    assert prefixed["n_scored"] == prefixed["n_tokens"]
    assert plain["score_key"] != prefixed["score_key"]
    (single,) = stage_for(tiny_folder, prefix="eod").process(batch_of(["x"])).kept.to_pylist()
    assert single["n_scored"] == 1


def test_documents_of_several_groups_keep_their_order_and_their_scores(tiny_folder):
    words = TEXTS[1].split()
    texts = [" ".join(words[i % 9 : i % 9 + 2 + i % 7]) for i in range(100)]
    stage = stage_for(tiny_folder)
    together = stage.process(batch_of(texts)).kept
    assert together.column("doc_id").to_pylist() == [f"d{i}" for i in range(100)]
    again = [stage.process(batch_of(texts[i : i + 20])).kept for i in range(0, 100, 20)]
    for name in ("nll_sum", "el2n_sum"):
        apart = [value for table in again for value in table.column(name).to_pylist()]
        assert together.column(name).to_pylist() == pytest.approx(apart, rel=1e-5)
    assert together.column("n_tokens").to_pylist() == [n for t in again for n in t.column("n_tokens").to_pylist()]


@pytest.mark.parametrize("settings", [{"token_budget": 64}, {"token_budget": 500}, {"head_chunk": 3}])
def test_scores_do_not_depend_on_the_batches_or_on_the_order_of_documents(tiny_folder, settings):
    texts = [TEXTS[0], TEXTS[1], TEXTS[5]] + [TEXTS[0][:n] for n in range(5, 45, 7)]
    base = stage_for(tiny_folder).process(batch_of(texts)).kept.to_pylist()
    other = stage_for(tiny_folder, **settings)
    backwards = other.process(batch_of(texts[::-1])).kept.to_pylist()[::-1]
    single = [other.process(batch_of([text])).kept.to_pylist()[0] for text in texts]
    assert {row["score_key"] for row in backwards} == {row["score_key"] for row in base}
    for row, reverse, alone in zip(base, backwards, single, strict=True):
        for name in ("nll_sum", "el2n_sum"):
            assert reverse[name] == pytest.approx(row[name], rel=1e-5)
            assert alone[name] == pytest.approx(row[name], rel=1e-5)
        assert reverse["n_scored"] == alone["n_scored"] == row["n_scored"]


def test_el2n_and_nll_lie_in_their_ranges(tiny_folder):
    for row in stage_for(tiny_folder).process(batch_of([t for t in TEXTS if t])).kept.to_pylist():
        if row["nll_sum"] is not None:
            assert row["nll_sum"] >= 0
            assert 0 <= row["el2n_sum"] / row["n_scored"] <= math.sqrt(2)
            assert 0 <= row["hits"] <= row["n_scored"]


def test_only_the_metrics_asked_for_are_written(tiny_folder, repeated_text):
    batch = batch_of([repeated_text, "short text"])
    rows = stage_for(tiny_folder, metrics=("el2n",)).process(batch).kept.to_pylist()
    assert all(row["nll_sum"] is None and row["el2n_sum"] is not None and row["memorization"] is None for row in rows)
    rows = stage_for(tiny_folder, metrics=("perplexity", "memorization"), mem_prompt=16, mem_continuation=16)
    known, short = rows.process(batch).kept.to_pylist()
    assert 0 <= known["memorization"] <= 1
    assert known["first_mismatch"] / 16 <= known["memorization"]
    assert (short["memorization"], short["first_mismatch"]) == (None, None)


def test_memorization_is_the_same_with_a_prefix_longer_contexts_and_other_batches(tiny_folder, repeated_text):
    texts = [repeated_text[i * 4 :] for i in range(6)]
    settings = {"metrics": ("memorization",), "mem_prompt": 12, "mem_continuation": 12}
    wide = stage_for(tiny_folder, **settings).process(batch_of(texts)).kept.column("memorization").to_pylist()
    small = stage_for(tiny_folder, context=32, token_budget=32, **settings).process(batch_of(texts)).kept
    assert small.column("memorization").to_pylist() == wide


@pytest.mark.parametrize("metrics", [("perplexity", "el2n"), ("top_k",), ("el2n",)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_document_whose_logits_are_not_finite_fails_alone(tiny_folder, metrics, value):
    stage = stage_for(tiny_folder, metrics=metrics)
    stage.setup()
    main = stage._models.main
    bad = main.tokenizer.encode_batch(["☃"])[0][0]
    # input and output embedding are one tensor in this model; apart, only documents with the token are hurt
    own = torch.nn.Embedding.from_pretrained(main.model.get_input_embeddings().weight.clone())
    own.weight[bad] = value
    main.model.set_input_embeddings(own)
    out = stage.process(batch_of(["a snowman ☃ in it", TEXTS[0]]))
    assert out.removed.column("skipped_reason").to_pylist() == ["error.non_finite_score"]
    assert out.removed.column("doc_id").to_pylist() == ["d0"]
    assert out.kept.column("doc_id").to_pylist() == ["d1"]


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_one_that_never_fits_fails_alone(tiny_folder, monkeypatch):
    stage = stage_for(tiny_folder)
    texts = [TEXTS[0]] * 6 + [TEXTS[1]]
    expected = stage.process(batch_of(texts)).kept
    forward, seen = WindowScorer.forward, []

    def small_memory(self, windows):
        seen.append(len(windows))
        if sum(len(w.ids) for w in windows) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, windows)

    monkeypatch.setattr(WindowScorer, "forward", small_memory)
    out = stage.process(batch_of(texts))
    assert max(seen) > 2
    assert out.removed.column("skipped_reason").to_pylist() == ["error.out_of_memory"]
    sums = out.kept.column("nll_sum").to_pylist()
    assert sums == pytest.approx(expected.column("nll_sum").to_pylist()[:6], rel=1e-5)


def test_another_failure_of_the_model_names_it_and_the_batch(tiny_folder, monkeypatch):
    def broken(self, windows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(WindowScorer, "forward", broken)
    with pytest.raises(ModelError, match=r"failed on a batch of shape \(1, \d+\): mat1"):
        stage_for(tiny_folder).process(batch_of(TEXTS[:1]))


def test_the_score_key_names_everything_that_a_score_depends_on_and_nothing_else(tiny_folder, tmp_path):
    key = stage_for(tiny_folder).score_key
    assert stage_for(tiny_folder, token_budget=99, head_chunk=7).score_key == key
    for change in ({"context": 32}, {"dtype": "bfloat16"}, {"prefix": "eod"}, {"mem_prompt": 3}):
        assert stage_for(tiny_folder, **change).score_key != key
    moved = shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    assert stage_for(moved).score_key == key
    settings = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**settings, "rms_norm_eps": 1e-3}))
    assert stage_for(moved).score_key != key


def test_settings_that_do_not_fit_the_model_are_refused(tiny_folder):
    with pytest.raises(ConfigError, match=r"context=4096 but model .* has 64 positions"):
        stage_for(tiny_folder, context=4096).setup()
    with pytest.raises(ConfigError, match="memorization needs 72 tokens but the context has 64"):
        stage_for(tiny_folder, mem_prompt=40, metrics=("memorization",)).setup()
    with pytest.raises(ModelError, match="expected 'beef'"):
        stage_for(tiny_folder, sha256="beef").setup()


def test_a_truncated_checkpoint_and_a_tokenizer_of_another_model_are_refused(tiny_folder, tmp_path):
    cut = shutil.copytree(tiny_folder, tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot be loaded: .*Expected a decoder known to transformers"):
        stage_for(cut).setup()
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 5000, "content": "<|far|>"})
    tokenizer["model"]["vocab"]["<|far|>"] = 5000
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="5001 ids but the model's vocabulary has 320 rows; they are no pair"):
        stage_for(other).setup()
    with pytest.raises(ModelError, match="does not exist"):
        stage_for(tmp_path / "nowhere").setup()


def test_an_empty_batch_gives_no_rows(tiny_folder):
    out = stage_for(tiny_folder).process(batch_of([]))
    assert (out.kept.num_rows, out.removed.num_rows) == (0, 0)
    assert out.kept.schema == SCORES.schema
