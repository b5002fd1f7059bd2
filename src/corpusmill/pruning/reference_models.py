"""Reference models: tokenizer, packed sequences, a decoder from a preset, and how well it predicts held-out text.

For perplexity the reference must be trained on text that is disjoint from the pool it scores, for memorization on the
pool itself ("When Less is More", arXiv 2309.04564v1, section 3.2). A score's direction depends on the reference's
corpus: under a clean reference low perplexity helps, under a crawl-trained one it hurts.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.errors import ModelError
from corpusmill.modeling.train_lm import PRESETS, Progress, TrainingSettings, new_model, train_lm
from corpusmill.pruning.packing import PackedSequences, pack
from corpusmill.pruning.perplexity import mean_nll

EOD = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True)
class ReferenceModel:
    """A trained reference model.

    Attributes:
        folder: Model, tokenizer and ``training.json``.
        n_parameters: Weights, tied ones once.
        n_tokens: Tokens of the packed training text.
        n_dropped: Tokens that filled no sequence.
        losses: Training loss of each step, nats per token.
        validation_nll: Nats per token on held-out text, None without any.
        checkpoints: Folders of the models saved on the way, by step.
    """

    folder: Path
    n_parameters: int
    n_tokens: int
    n_dropped: int
    losses: list[float]
    validation_nll: float | None
    checkpoints: dict[int, Path] = field(default_factory=dict)


def train_tokenizer(texts: Iterable[str], n_vocab: int = 2048) -> Any:
    """Returns a byte-level BPE `tokenizers.Tokenizer`; every text can be encoded and comes back unchanged.

    Args:
        texts: Training text.
        n_vocab: Ids, the 256 bytes and two special tokens included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[EOD, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def pack_texts(texts: Iterable[str], tokenizer: Any, context: int) -> PackedSequences:
    """Returns the texts tokenised, each closed by the end-of-document token, packed into sequences."""
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return pack((item.ids for item in encoded), tokenizer.token_to_id(EOD), context)


def train_reference_model(
    texts: Iterable[str],
    out_dir: Path,
    preset: str = "tiny",
    steps: int = 600,
    seed: int = 0,
    *,
    validation: Sequence[str] = (),
    n_vocab: int = 2048,
    checkpoints: Sequence[int] = (),
    settings: TrainingSettings | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
) -> ReferenceModel:
    """Returns a reference model trained from scratch and saved as a Hugging Face folder with safetensors.

    Args:
        texts: Training documents.
        out_dir: Folder to write; a killed run resumes from the checkpoint in it.
        preset: One of `corpusmill.modeling.train_lm.PRESETS`.
        steps: Optimiser steps.
        seed: Of initialisation and data order.
        validation: Held-out documents.
        n_vocab: Size of the tokenizer that is trained on the texts.
        checkpoints: Steps after which the model is saved too, for EL2N of an early model (``out_dir/step_N``).
        settings: Everything else of the training; its steps and seed are replaced.
        dtype: Type of the stored weights.
        device: Where to train.
        progress: Called after each step.

    Raises:
        ModelError: There is too little text for one sequence.
    """
    documents = list(texts)
    tokenizer = train_tokenizer(documents, n_vocab)
    eod = tokenizer.token_to_id(EOD)
    model = new_model(preset, tokenizer.get_vocab_size(), eod, seed).to(device)
    context = PRESETS[preset].context
    packed = pack_texts(documents, tokenizer, context)
    if not len(packed.sequences):
        raise ModelError(
            f"{len(documents)} documents give {len(packed.remainder)} tokens, less than one sequence of {context}; "
            "give more text"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    saved: dict[int, Path] = {}

    def save_early(step: int, trained: Any) -> None:
        if step in checkpoints:
            saved[step] = out_dir / f"step_{step}"
            save_model(trained, tokenizer, saved[step], dtype)

    plan = TrainingSettings(**{**asdict(settings or TrainingSettings(steps)), "steps": steps, "seed": seed})
    run = train_lm(model, packed.sequences, plan, out_dir, progress, save_early)
    held_out = pack_texts(validation, tokenizer, context) if validation else None
    nll = None if held_out is None else sequence_nll(model, held_out.sequences)
    save_model(model, tokenizer, out_dir, dtype)
    result = ReferenceModel(
        folder=out_dir,
        n_parameters=sum(p.numel() for p in model.parameters()),
        n_tokens=int(packed.sequences.size),
        n_dropped=len(packed.remainder),
        losses=run.losses,
        validation_nll=nll,
        checkpoints=saved,
    )
    _write_training_record(result, preset, plan)
    return result


def sequence_nll(model: Any, sequences: np.ndarray, batch_size: int = 16) -> float | None:
    """Returns nats per token over packed sequences, None where there are none."""
    import torch

    from corpusmill.pruning.one_pass import score_batch

    total, count = 0.0, 0
    for start in range(0, len(sequences), batch_size):
        ids_BT = torch.from_numpy(sequences[start : start + batch_size])
        sums = score_batch(model, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
        total += float(sums.nll_sum.sum())
        count += int(sums.n_scored.sum())
    return float(mean_nll(total, count)) if count else None


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: str = "float32") -> None:
    """Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json; the model is unchanged."""
    import copy

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    stored = copy.deepcopy(model).to("cpu", getattr(torch, dtype))
    stored.config.dtype = getattr(torch, dtype)
    stored.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD, "pad_token": PAD}
    settings["model_max_length"] = int(model.config.max_position_embeddings)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def _write_training_record(result: ReferenceModel, preset: str, plan: TrainingSettings) -> None:
    record = {
        "preset": preset,
        "shape": asdict(PRESETS[preset]),
        "settings": asdict(plan),
        "n_parameters": result.n_parameters,
        "n_tokens": result.n_tokens,
        "n_tokens_dropped": result.n_dropped,
        "validation_nll": result.validation_nll,
        "losses": [round(loss, 4) for loss in result.losses],
    }
    (result.folder / "training.json").write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")
