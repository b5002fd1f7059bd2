"""A base from plain text: packed, resumable, and what fine-tuning takes."""

import json
import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from corpusmill.errors import ConfigError, ModelError  # noqa: E402
from corpusmill.prox.base_pretraining import pack_documents, pretrain_base  # noqa: E402
from corpusmill.prox.causal_model import CausalModel  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig  # noqa: E402
from corpusmill.prox.program_model_base import load_base  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402

WORDS = ["river", "water", "survey", "page", "snow", "melt", "spring", "data"]
SMALL = {"preset": "new:test", "batch_size": 4, "n_vocab": 420, "context": 128, "device": "cpu", "learning_rate": 5e-3}


def documents(n):
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=40)) + "\n" for _ in range(n)]


def test_a_base_is_written_that_fine_tuning_and_refining_load(tmp_path):
    torch.set_num_threads(1)
    lines = []
    done = pretrain_base(documents(200), tmp_path / "base", **SMALL, epochs=2, held_out=0.05, progress=lines.append)
    assert done.losses[-1] < done.losses[0] - 1
    assert done.held_out_nll == pytest.approx(done.losses[-1], abs=0.5)
    assert lines[-1].startswith(f"step {len(done.losses)} of {len(done.losses)}: loss ")
    record = json.loads((tmp_path / "base" / "pretraining.json").read_text())
    assert (record["preset"], record["n_tokens"]) == ("test", done.n_tokens)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    base = load_base(str(tmp_path / "base"), "base", list, tmp_path, n_vocab=0, context=0, seed=0, device="cpu")
    assert (base.is_new, base.context, base.tokenizer.eos) == (False, 128, 2)
    assert base.tokenizer.encoder.assembles()
    assert base.tokenizer.decision_ids() is not None
    assert CausalModel(tmp_path / "base", ChunkRefinementConfig(model="base", device="cpu")).context == 128


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_run_ends_as_it_would_have(tmp_path):
    def kill(_line):
        raise Killed

    arguments = {**SMALL, "epochs": 7, "batch_size": 1, "held_out": 0.0}
    texts = documents(60)
    whole = pretrain_base(texts, tmp_path / "whole", **arguments)
    assert len(whole.losses) > 128
    with pytest.raises(Killed):
        pretrain_base(texts, tmp_path / "killed", **arguments, progress=_at("step 128 ", kill))
    assert not (tmp_path / "killed").exists()
    assert pretrain_base(texts, tmp_path / "killed", **arguments).losses == whole.losses
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


def _at(start, act):
    return lambda line: act(line) if line.startswith(start) else None


def test_documents_are_packed_between_their_marks(tmp_path):
    pretrain_base(documents(60), tmp_path / "base", **SMALL, epochs=0.1)
    tokenizer = load_tokenizer(tmp_path / "base")
    rows = pack_documents(["river water", "snow " * 30], tokenizer, 8)
    assert rows.shape[1] == 8
    ids = rows.flatten().tolist()
    n = len(tokenizer.encoder.encode("river water"))
    assert (ids[0], ids[n + 1], ids[n + 2]) == (1, 2, 1)
    assert pack_documents([], tokenizer, 8).shape == (0, 8)


def test_too_little_text_and_wrong_numbers_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"1 documents fill 0 sequences of 128 ids; give more text"):
        pretrain_base(["river water"], tmp_path / "m", **SMALL)
    with pytest.raises(ConfigError, match="epochs=0"):
        pretrain_base(documents(9), tmp_path / "m", **SMALL, epochs=0)
    with pytest.raises(ConfigError, match="base='new:huge' is unknown"):
        pretrain_base(documents(9), tmp_path / "m", **{**SMALL, "preset": "new:huge"})
