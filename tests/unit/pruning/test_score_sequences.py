"""Packed sequences of token ids as units of scoring."""

import pyarrow as pa
import pytest
import torch

from corpusmill.errors import ConfigError
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.scoring import ScoreStage
from corpusmill.schema import SCORES

TEXT = "the old mill grinds the grain of the whole valley and nobody asks how long the river will carry it. "


def sequences_of(rows, sha, n_bytes=None):
    n = len(rows)
    return pa.table(
        {
            "crawl": ["C-1"] * n,
            "doc_id": [f"s{i}" for i in range(n)],
            "warc_file": ["w"] * n,
            "language": pa.nulls(n, pa.large_string()),
            "n_bytes": pa.array(n_bytes or [None] * n, pa.int64()),
            "tokens": pa.array(rows, pa.list_(pa.int32())),
            "tokenizer_sha256": [sha] * n,
        }
    )


def stage_for(folder, **settings):
    return ScoreStage(ScoringConfig(model=str(folder), device="cpu", unit="sequence", **settings))


def test_a_sequence_scores_like_the_text_whose_tokens_it_holds(tiny_folder, tiny_tokenizer):
    ids = tiny_tokenizer.encode_batch([TEXT])[0]
    documents = ScoreStage(ScoringConfig(model=str(tiny_folder), device="cpu"))
    text_batch = pa.table({"crawl": ["C-1"], "doc_id": ["s0"], "warc_file": ["w"], "language": [None], "text": [TEXT]})
    (expected,) = documents.process(text_batch).kept.to_pylist()
    stage = stage_for(tiny_folder)
    assert set(stage.input_columns) == set(sequences_of([], "").column_names)
    out = stage.process(sequences_of([ids], tiny_tokenizer.sha256))
    assert out.kept.schema == SCORES.schema
    (row,) = out.kept.to_pylist()
    assert (row["unit"], row["doc_id"], row["n_bytes"]) == ("sequence", "s0", len(TEXT.encode()))
    assert row["score_key"] != expected["score_key"]
    same = ("nll_sum", "el2n_sum", "n_scored", "n_tokens", "n_bytes", "hits")
    assert {name: row[name] for name in same} == {name: expected[name] for name in same}
    assert set(out.metrics) >= {"n_unscored_sequences", "n_sequences_longer_than_context"}


def test_the_end_of_document_token_inside_a_sequence_is_an_ordinary_token(tiny_folder, tiny_tokenizer):
    ids = tiny_tokenizer.encode_batch([TEXT])[0][:20]
    with_end = [*ids[:10], tiny_tokenizer.eod_id, *ids[10:]]
    (row,) = stage_for(tiny_folder).process(sequences_of([with_end], tiny_tokenizer.sha256)).kept.to_pylist()
    assert row["n_scored"] == len(with_end) - 1


def test_a_sequence_whose_logits_are_not_finite_fails_alone(tiny_folder, tiny_tokenizer):
    stage = stage_for(tiny_folder)
    stage.setup()
    bad, good = tiny_tokenizer.encode_batch(["☃", TEXT])
    model = stage._models.main.model
    own = torch.nn.Embedding.from_pretrained(model.get_input_embeddings().weight.clone())  # else tied to the output
    own.weight[bad[0]] = float("nan")
    model.set_input_embeddings(own)
    out = stage.process(sequences_of([[*good[:9], bad[0], *good[9:20]], good], tiny_tokenizer.sha256))
    assert out.removed.column("skipped_reason").to_pylist() == ["error.non_finite_score"]
    assert out.removed.column("doc_id").to_pylist() == ["s0"]
    assert out.kept.column("doc_id").to_pylist() == ["s1"]


def test_given_bytes_are_kept_and_a_sequence_longer_than_the_context_is_cut_and_counted(tiny_folder, tiny_tokenizer):
    ids = (tiny_tokenizer.encode_batch([TEXT])[0] * 6)[:130]
    out = stage_for(tiny_folder).process(sequences_of([ids], tiny_tokenizer.sha256, n_bytes=[777]))
    (row,) = out.kept.to_pylist()
    assert (row["n_bytes"], row["n_tokens"], row["n_scored"]) == (777, 130, 130 - 3)
    assert out.metrics["n_sequences_longer_than_context"] == 1


def test_sequences_of_another_tokenizer_are_refused_with_both_digests(tiny_folder, tiny_tokenizer):
    with pytest.raises(ConfigError, match=rf"'beef', the reference model has '{tiny_tokenizer.sha256}'"):
        stage_for(tiny_folder).process(sequences_of([[1, 2, 3]], "beef"))


@pytest.mark.parametrize(
    ("tokens", "reason"), [(None, "error.null_tokens"), ([5, -1], "error.token_id"), ([5, 99_999], "error.token_id")]
)
def test_a_row_without_usable_tokens_fails_alone(tiny_folder, tiny_tokenizer, tokens, reason):
    out = stage_for(tiny_folder).process(sequences_of([tokens, [5, 6, 7]], tiny_tokenizer.sha256))
    assert out.removed.column("skipped_reason").to_pylist() == [reason]
    assert out.kept.column("doc_id").to_pylist() == ["s1"]
