import json

import pytest

from corpusmill.errors import ModelError
from corpusmill.modeling.load import load_causal_lm, load_tokenizer, model_sha256
from corpusmill.pruning.reference_models import train_reference_model, train_tokenizer

TEXTS = ["the mill grinds the grain and the river carries it on"] * 30


@pytest.mark.slow
def test_a_reference_model_is_the_same_every_time_and_keeps_early_checkpoints(tmp_path):
    made = [
        train_reference_model(
            TEXTS, tmp_path / name, preset="test", steps=12, seed=1, n_vocab=280, checkpoints=(5,), validation=TEXTS[:4]
        )
        for name in ("a", "b")
    ]
    assert model_sha256(made[0].folder) == model_sha256(made[1].folder)
    assert made[0].losses == made[1].losses
    assert made[0].checkpoints[5] == tmp_path / "a" / "step_5"
    early, late = (load_causal_lm(str(p), device="cpu") for p in (made[0].checkpoints[5], made[0].folder))
    assert any((a != b).any() for a, b in zip(early.parameters(), late.parameters(), strict=True))
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["validation_nll"] == pytest.approx(made[0].validation_nll)
    assert len(record["losses"]) == record["settings"]["steps"] == 12
    assert record["n_tokens"] % 64 == 0


def test_another_seed_gives_another_model(tmp_path):
    made = [
        train_reference_model(TEXTS, tmp_path / str(seed), preset="test", steps=2, seed=seed, n_vocab=280)
        for seed in (1, 2)
    ]
    assert made[0].losses != made[1].losses
    assert made[0].validation_nll is None


def test_too_little_text_is_named_with_its_count(tmp_path):
    with pytest.raises(ModelError, match=r"1 documents give .* less than one sequence of 64"):
        train_reference_model(["tiny"], tmp_path, preset="test", steps=1, n_vocab=270)


def test_a_trained_tokenizer_gives_every_text_back(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    loaded = load_tokenizer(str(tmp_path))
    for text in ("the mill", "\x00\x7f ünïcode 日本 🦀\r\n", ""):
        assert loaded.decode(loaded.encode_batch([text])[0]) == text
