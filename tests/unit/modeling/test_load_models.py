import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from corpusmill.errors import ModelError
from corpusmill.modeling.load import choose_device, load_causal_lm, load_tokenizer, model_folder, model_sha256
from corpusmill.modeling.train_lm import new_model
from corpusmill.pruning.reference_models import EOD, save_model, train_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = train_tokenizer(["some text to learn merges from, some text again"] * 5, 300)
    save_model(new_model("test", tokenizer.get_vocab_size(), 0, 1), tokenizer, folder, "float16")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_model_is_loaded_in_the_type_asked_for_whatever_its_files_hold(saved):
    for name in ("float32", "bfloat16"):
        model = load_causal_lm(str(saved), dtype=name, device="cpu")
        assert {p.dtype for p in model.parameters()} == {getattr(torch, name)}
        assert not model.training


def test_the_digest_depends_on_contents_but_not_on_place_or_card(saved, copy):
    digest = model_sha256(saved)
    assert model_sha256(copy) == digest
    (copy / "README.md").write_text("a card")
    assert model_sha256(copy) == digest
    (copy / "tokenizer_config.json").write_text("{}")
    assert model_sha256(copy) != digest


def test_an_empty_folder_has_no_digest(tmp_path):
    with pytest.raises(ModelError, match="is empty"):
        model_sha256(tmp_path)


def test_pickled_weights_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors file; .* refused"):
        load_causal_lm(str(copy), device="cpu")


def test_truncated_weights_are_an_error_that_names_the_folder(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"copy.* cannot be loaded"):
        load_causal_lm(str(copy), device="cpu")


def test_missing_weights_are_an_error_and_never_random_numbers(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(key for key in weights if "mlp" in key)
    del weights[name]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights of its architecture"):
        load_causal_lm(str(copy), device="cpu")


def test_code_in_a_model_folder_is_never_run(copy):
    settings = json.loads((copy / "config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (copy / "config.json").write_text(json.dumps(settings))
    (copy / "evil.py").write_text(f"open({str(copy / 'was_here')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(str(copy), device="cpu")
    assert not (copy / "was_here").exists()


@pytest.mark.parametrize("path", ["/no/such/model", "./nowhere", "bundled:nothing"])
def test_a_model_that_is_not_there_is_named_with_what_to_give(path):
    with pytest.raises(ModelError, match=r"nothing|nowhere|/no/such/model"):
        model_folder(path)


def test_a_hub_model_that_cannot_be_reached_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"some-org/some-model.*give its folder"):
        model_folder("some-org/some-model", "abc123")


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert choose_device("auto") == "cpu"
    with pytest.raises(ModelError, match="sees no GPU"):
        choose_device("cuda")


def test_a_tokenizer_adds_nothing_and_reads_special_tokens_in_a_text_as_characters(saved):
    tokenizer = load_tokenizer(str(saved))
    text = f"some text{EOD}  ünïcode\n\ttabs 🦀"
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.eod_id == 0
    assert tokenizer.eod_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([""]) == [[]]
    assert max(ids) < tokenizer.n_vocab


def test_a_folder_without_tokenizer_or_with_a_broken_one_is_named(copy):
    (copy / "tokenizer.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(str(copy))
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        load_tokenizer(str(copy))


def test_the_gpt_preset_is_a_gpt2_that_can_be_saved_and_loaded(tmp_path):
    from dataclasses import replace

    from corpusmill.modeling.train_lm import PRESETS

    shape = replace(PRESETS["gpt-124m"], hidden=32, layers=1, heads=2, feed_forward=64, context=32)
    tokenizer = train_tokenizer(["a few words"], 270)
    save_model(new_model(shape, tokenizer.get_vocab_size(), 0, 0), tokenizer, tmp_path)
    assert isinstance(load_causal_lm(str(tmp_path), device="cpu"), GPT2LMHeadModel)
