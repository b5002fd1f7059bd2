"""Packing a file: fixed length, every token owned, bytes that add up, and what is dropped is counted."""

import json
import random
import shutil

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from corpusmill.errors import ConfigError, ModelError
from corpusmill.pruning import pack_stage
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.pack_stage import PackStage
from corpusmill.pruning.packing_config import PackingConfig, packing_of

LENGTH = 32
TEXTS = {
    "d3": "the old mill grinds the grain of the whole valley and nobody asks",
    "d1": "Ünïcödé — 日本語 🦀🦀🦀 text that a byte-level vocabulary cuts inside of characters 漢字漢字漢字 " * 3,
    "d2": "",
    "d0": "river",
    "d4": "the grain of the valley <|endoftext|> how long the river will carry it. " * 9,
}


def documents(texts):
    return pa.table({"doc_id": list(texts), "text": pa.array(list(texts.values()), pa.large_string())})


@pytest.fixture(scope="module")
def stage(tiny_folder):
    made = PackStage(PackingConfig(model=str(tiny_folder), length=LENGTH))
    made.setup()
    return made


def packed(stage, texts, file="w"):
    outputs = list(stage.pack_file("C", file, documents(texts)))
    metrics: dict[str, float] = {}
    for output in outputs:
        for name, value in output.metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    faults = [q for output in outputs for q in output.quarantine]
    return pa.concat_tables([o.kept for o in outputs]).to_pylist(), metrics, faults


def test_sequences_are_the_documents_in_order_of_their_ids_each_closed(stage):
    rows, metrics, _ = packed(stage, TEXTS)
    eod = stage.tokenizer.eod_id
    stream = [t for _, text in sorted(TEXTS.items()) for t in (*stage.tokenizer.encode_batch([text])[0], eod)]
    assert [t for row in rows for t in row["tokens"]] == stream[: len(rows) * LENGTH]
    assert len(stream) == metrics["sequence_tokens"] + metrics["remainder_tokens"]
    assert metrics["sequences"] == len(rows) == len(stream) // LENGTH > 4
    assert stream.count(eod) == len(TEXTS), "a page that spells the end token does not end a document"


def test_every_token_of_a_sequence_has_one_owner_and_every_document_its_tokens_in_order(stage):
    rows, _, _ = packed(stage, TEXTS)
    held: dict[str, int] = {}
    for row in rows:
        assert row["n_documents"] == len(row["spans"])
        assert [s["start"] for s in row["spans"]] == [0, *(s["end"] for s in row["spans"][:-1])]
        assert row["spans"][-1]["end"] == row["n_tokens"] == LENGTH
        for span in row["spans"]:
            assert span["first_token"] == held.get(span["doc_id"], 0)
            held[span["doc_id"]] = span["first_token"] + span["end"] - span["start"]
            assert held[span["doc_id"]] <= span["document_tokens"]


def test_the_bytes_of_sequences_add_up_to_the_bytes_of_their_documents(stage):
    rows, metrics, _ = packed(stage, TEXTS)
    total = sum(len(text.encode()) for text in TEXTS.values())
    rest = total - sum(row["n_bytes"] for row in rows)
    assert 0 <= rest <= 4 * metrics["remainder_tokens"]
    whole = {"a": TEXTS["d1"], "b": "x" * 4000}
    rows, _, _ = packed(stage, whole)
    upto = next(i for i, row in enumerate(rows) if row["spans"][-1]["doc_id"] == "b")
    assert sum(row["n_bytes"] for row in rows[:upto]) <= len(whole["a"].encode())
    for row in rows[upto + 1 : -1]:
        assert row["n_bytes"] == len(stage.tokenizer.decode(row["tokens"]))


def test_documents_may_come_in_any_order_and_be_tokenised_in_any_parts(stage, monkeypatch):
    expected = packed(stage, TEXTS)[0]
    names = list(TEXTS)
    random.Random(3).shuffle(names)
    monkeypatch.setattr(pack_stage, "CHARS_AT_ONCE", 50)
    monkeypatch.setattr(pack_stage, "DOCUMENTS_AT_ONCE", 2)
    assert packed(stage, {name: TEXTS[name] for name in names})[0] == expected


def test_ids_are_unique_stable_and_name_file_place_tokenizer_and_length(stage, tiny_folder):
    one, two = packed(stage, TEXTS)[0], packed(stage, TEXTS, "other")[0]
    ids = {row["sequence_id"] for row in (*one, *two)}
    assert len(ids) == 2 * len(one)
    longer = PackStage(PackingConfig(model=str(tiny_folder), length=LENGTH * 2))
    assert not ids & {row["sequence_id"] for row in packed(longer, TEXTS)[0]}
    assert [row["sequence_id"] for row in packed(stage, TEXTS)[0]] == [row["sequence_id"] for row in one]


def test_what_fits_in_no_sequence_is_counted(stage):
    rows, metrics, _ = packed(stage, {"a": "x", "b": "y"})
    assert rows == []
    assert metrics["remainder_tokens"] == 4
    assert metrics["documents"] == metrics["documents_in_remainder"] == 2
    assert metrics["files_without_sequence"] == 1
    rows, metrics, _ = packed(stage, TEXTS)
    assert metrics["documents_in_remainder"] == 0
    assert metrics["files_without_sequence"] == 0


def test_a_document_without_text_goes_to_quarantine_and_costs_no_other(stage):
    rows, metrics, faults = packed(stage, {**TEXTS, "d2": None})
    assert [(q.where, q.reason) for q in faults] == [("d2", "error.null_text")]
    assert metrics["documents"] == len(TEXTS) - 1
    assert "d2" not in {s["doc_id"] for row in rows for s in row["spans"]}


def test_a_model_without_an_end_token_or_with_another_digest_is_refused(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    with pytest.raises(ModelError, match="expected '0000'"):
        PackStage(PackingConfig(model=str(folder), sha256="0000")).setup()
    for name in ("tokenizer_config.json", "config.json"):
        (folder / name).write_text("{}")
    with pytest.raises(ConfigError, match="eos_token"):
        PackStage(PackingConfig(model=str(folder))).setup()


def test_a_tokenizer_of_vocabulary_and_merges_packs_as_its_tokenizer_json_does(stage, tiny_folder, tmp_path):
    """Such a folder has no tokenizer.json; transformers makes the same tokenizer of its two files."""
    Tokenizer.from_file(str(tiny_folder / "tokenizer.json")).model.save(str(tmp_path))
    special = dict.fromkeys(("eos_token", "bos_token", "unk_token"), "<|endoftext|>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **special}))
    shutil.copy(tiny_folder / "config.json", tmp_path)
    made = PackStage(PackingConfig(model=str(tmp_path), length=LENGTH))
    made.setup()
    rows, metrics, _ = packed(made, TEXTS)
    expected, same, _ = packed(stage, TEXTS)
    assert metrics == same
    for row, other in zip(rows, expected, strict=True):
        assert row["tokens"] == other["tokens"]
        assert row["n_bytes"] == other["n_bytes"]


def test_a_tokenizer_that_runs_in_python_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "eos_token_id": 1}))
    with pytest.raises(ModelError, match=r"ByT5Tokenizer does not say where.*score\.unit: document"):
        PackStage(PackingConfig(model=str(tmp_path), length=LENGTH)).setup()


def test_sequences_fill_the_context_that_scores_them():
    scoring = ScoringConfig(unit="sequence", context=256)
    assert packing_of(scoring).length == 256
    assert packing_of(scoring.model_copy(update={"prefix": "eod"})).length == 255
    with pytest.raises(ConfigError, match="set context"):
        packing_of(scoring.model_copy(update={"context": None}))
