import json
import random
import shutil

import pytest

from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import load_tokenizer
from corpusmill.pruning.checkpoint_marks import checkpoint_step
from corpusmill.pruning.reference_tokenizer import copy_tokenizer, sample_texts, save_tokenizer, train_tokenizer


def documents(n):
    return [(f"d{i}", f"{i:03d}" + "x" * (7 + i % 13)) for i in range(n)]


def test_a_sample_is_bounded_and_the_same_for_any_order():
    rows = documents(300)
    taken = sample_texts(rows, 500)
    assert 480 <= sum(map(len, taken)) <= 500
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert sample_texts(rows, 500) == taken
    assert sample_texts(rows, 1000)[: len(taken)] == taken
    assert sample_texts(rows, 500, seed=1) != taken


def test_a_sample_of_one_long_document_is_cut_and_one_of_nothing_is_empty():
    assert sample_texts([("a", "y" * 100)], 30) == ["y" * 30]
    assert sample_texts([], 30) == []
    assert len(sample_texts(documents(5), 10**9)) == 5


def test_another_models_tokenizer_is_copied_with_its_end_token(tmp_path):
    source = tmp_path / "source"
    save_tokenizer(train_tokenizer(["the mill grinds"] * 9, 300), source, 64)
    (source / "model.safetensors").write_bytes(b"no tokenizer")
    copy_tokenizer(str(source), tmp_path / "copy")
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert load_tokenizer(str(tmp_path / "copy")).eod_id == load_tokenizer(str(source)).eod_id == 0
    shutil.copytree(source, tmp_path / "other")
    (tmp_path / "other" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="names no end-of-document token"):
        copy_tokenizer(str(tmp_path / "other"), tmp_path / "nothing")
    (tmp_path / "other" / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    copy_tokenizer(str(tmp_path / "other"), tmp_path / "named")
    assert load_tokenizer(str(tmp_path / "named")).eod_id == 1


def test_shares_of_the_data_are_the_papers_steps():
    """250 and 1000 steps of 2048 sequences are 14 % and 55 % of 7.6 billion tokens in sequences of 2048."""
    n = 7_600_000_000 // 2048
    assert abs(checkpoint_step("14%", n, 2048) - 250) <= 5
    assert abs(checkpoint_step("55%", n, 2048) - 1000) <= 5
    assert checkpoint_step("100%", 100, 8) == 13
    assert checkpoint_step("50%", 16, 4) == 2
    assert checkpoint_step("0.001%", 100, 8) == 1
    assert checkpoint_step(7, 100, 8) == checkpoint_step("7", 100, 8) == 7
    for wrong in ("0%", "-3", "x", "nan%", "1e999%", 0):
        with pytest.raises(ConfigError, match="is neither a step above 0 nor a share"):
            checkpoint_step(wrong, 100, 8)
