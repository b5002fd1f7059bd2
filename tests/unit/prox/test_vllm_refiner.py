"""Refiners over vLLM: its absence, and the adapter against a stand-in with vLLM's call signatures.

vLLM itself needs a GPU and pins its own torch, so it is not installed where these tests run. The stand-in takes what
``vllm.LLM``, ``LLM.generate`` and ``SamplingParams`` take, refuses anything else, and answers with a real model.
"""

import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from corpusmill.errors import ConfigError, ModelError  # noqa: E402
from corpusmill.prox.chunking import Chunk  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.prox.refiner import load_chunk_refiner, load_doc_refiner  # noqa: E402

PAGES = ["river water survey", "login menu cookie share", "snow melt\nin spring", "table", "water " * 400]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*PAGES, *["drop_doc()", "keep_doc()"] * 20], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=tokenizer.get_vocab_size(), n_embd=32, n_layer=2, n_head=2, n_positions=512,
            initializer_range=0.4, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    model.config.save_pretrained(folder)  # names BOS
    loaded = load_tokenizer(folder)
    with torch.inference_mode():  # so that the first two pages begin with drop and keep
        hidden = torch.stack(
            [
                model.transformer(input_ids=torch.tensor([loaded.encoder.document_ids(text, "compat", 400)[0]]))
                .last_hidden_state[0, -1]
                for text in PAGES
            ]
        )  # fmt: skip
        for token, wanted in zip(loaded.decision_ids(), ([30, 28, 0, 0, 0], [28, 30, 0, 0, 0]), strict=True):
            model.lm_head.weight[token] = torch.linalg.pinv(hidden) @ torch.tensor(wanted, dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


@dataclass
class SamplingParams:
    """The fields of vLLM's that are of use here, under its names and with its defaults."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    detokenize: bool = True
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None


@dataclass
class OldSamplingParams:
    """The same before vLLM could report given tokens."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    detokenize: bool = True
    logprobs: int | None = None


class LLM:
    """Takes vLLM's arguments and decodes greedily with transformers."""

    def __init__(
        self, model, *, dtype="auto", seed=None, skip_tokenizer_init=False, trust_remote_code=False,
        generation_config="auto", enable_prefix_caching=None,
    ):  # fmt: skip
        assert skip_tokenizer_init
        assert generation_config == "vllm"
        assert (dtype, seed, trust_remote_code) == ("float32", 0, False)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model).eval()

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        assert sampling_params.temperature == 0
        assert not sampling_params.detokenize
        return [SimpleNamespace(outputs=[self.one(prompt["prompt_token_ids"], sampling_params)]) for prompt in prompts]

    def one(self, ids, params):
        assert len(ids) + params.max_tokens <= 512, "vLLM refuses what is longer than the context"
        new, logprobs = [], []
        while len(new) < params.max_tokens and not (new and new[-1] in params.stop_token_ids):
            with torch.inference_mode():
                last = self.model(input_ids=torch.tensor([ids + new])).logits[0, -1].log_softmax(0)
            new.append(int(last.argmax()))
            given = getattr(params, "logprob_token_ids", None)
            reported = [new[-1], *(given or last.topk(params.logprobs or 1).indices.tolist())]
            logprobs.append({token: SimpleNamespace(logprob=float(last[token])) for token in reported})
        stopped = bool(new) and new[-1] in params.stop_token_ids
        return SimpleNamespace(
            token_ids=tuple(new), finish_reason="stop" if stopped else "length", text="",
            logprobs=logprobs if params.logprobs or given else None,
        )  # fmt: skip


def install(monkeypatch, sampling_params):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, sampling_params
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.parametrize("sampling_params", [SamplingParams, OldSamplingParams])
def test_decisions_equal_those_of_transformers(monkeypatch, folder, sampling_params):
    install(monkeypatch, sampling_params)
    here = DocRefinementConfig(model=str(folder), max_prompt_tokens=400, max_new_tokens=5)
    expected = load_doc_refiner(here).decide(PAGES)
    decisions = load_doc_refiner(here.model_copy(update={"backend": "vllm"})).decide(PAGES)
    for one, other in zip(decisions, expected, strict=True):
        assert (one.decision, one.output, one.reason) == (other.decision, other.output, other.reason)
        assert (one.n_prompt_tokens, one.truncated) == (other.n_prompt_tokens, other.truncated)
        if sampling_params is SamplingParams or other.output in ("drop_doc()", "keep_doc()"):
            assert one.margin == pytest.approx(other.margin, abs=1e-5)
    assert [one.output for one in decisions[:2]] == ["drop_doc()", "keep_doc()"]
    assert any(one.output not in ("drop_doc()", "keep_doc()") for one in decisions)


def test_programs_equal_those_of_transformers_up_to_the_edge_of_the_context(monkeypatch, folder):
    install(monkeypatch, SamplingParams)
    here = ChunkRefinementConfig(model=str(folder), window_tokens=60, max_new_tokens=12, stop_loops=False)
    expected, refiner = (load_chunk_refiner(c) for c in (here, here.model_copy(update={"backend": "vllm"})))
    chunks = [chunk for text in PAGES for chunk in refiner.split(text)]
    chunks += [Chunk(0, ("water " * n,)) for n in range(40, 600, 40)]
    outputs = refiner.write_programs(chunks)
    assert outputs == expected.write_programs(chunks)
    assert {output.reason for output in outputs} == {"", "too_long_prompt"}
    assert refiner.write_programs([]) == []


def test_the_model_is_identified_by_its_weights_and_settings(monkeypatch, folder):
    install(monkeypatch, SamplingParams)
    here = DocRefinementConfig(model=str(folder))
    refiner, other = load_doc_refiner(here.model_copy(update={"backend": "vllm"})), load_doc_refiner(here)
    assert refiner.model_id == other.model_id
    assert refiner.fingerprint != other.fingerprint, "another backend rounds otherwise"


def test_the_absence_of_vllm_is_told_with_how_to_install_it(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "vllm", None)
    for load, kind in ((load_doc_refiner, DocRefinementConfig), (load_chunk_refiner, ChunkRefinementConfig)):
        with pytest.raises(ModelError, match="pip install vllm"):
            load(kind(model=str(folder), backend="vllm"))


def test_a_device_and_the_grammar_are_refused(monkeypatch, folder):
    install(monkeypatch, SamplingParams)
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        load_doc_refiner(DocRefinementConfig(model=str(folder), backend="vllm", device="cpu"))
    with pytest.raises(ConfigError, match="under the grammar"):
        load_chunk_refiner(ChunkRefinementConfig(model=str(folder), backend="vllm", constrained=True))
