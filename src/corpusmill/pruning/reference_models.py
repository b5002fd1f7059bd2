"""A reference model of texts in memory: tokenizer, packed sequences, a decoder from a preset, its held-out NLL.

For perplexity the reference must be trained on text that is disjoint from the pool it scores, for memorization on the
pool itself ("When Less is More", arXiv 2309.04564v1, section 3.2). A score's direction depends on the reference's
corpus: under a clean reference low perplexity helps, under a crawl-trained one it hurts. Corpora that no list should
hold are built by `corpusmill.runner.reference_building`, from the same parts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from corpusmill.errors import ModelError
from corpusmill.modeling.train_lm import CHECKPOINT, PRESETS, Progress, TrainingSettings, new_model
from corpusmill.pruning.packing import PackedSequences, pack
from corpusmill.pruning.reference_tokenizer import EOD as EOD
from corpusmill.pruning.reference_tokenizer import PAD as PAD
from corpusmill.pruning.reference_tokenizer import save_tokenizer
from corpusmill.pruning.reference_tokenizer import train_tokenizer as train_tokenizer
from corpusmill.pruning.reference_training import save_weights, train_and_save
from corpusmill.pruning.reference_training import sequence_nll as sequence_nll


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
    tokenizer: Any = None,
    checkpoints: Sequence[int] = (),
    settings: TrainingSettings | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
) -> ReferenceModel:
    """Returns a reference model trained from scratch and saved as a Hugging Face folder with safetensors.

    Args:
        texts: Training documents; held in memory.
        out_dir: Folder to write; a killed run resumes from the checkpoint in it.
        preset: One of `corpusmill.modeling.train_lm.PRESETS`.
        steps: Optimiser steps.
        seed: Of initialisation and data order.
        validation: Held-out documents.
        n_vocab: Size of the tokenizer that is trained on the texts.
        tokenizer: A `tokenizers.Tokenizer` to take instead, with `EOD` among its ids.
        checkpoints: Steps after which the model is saved too, for EL2N of an early model (``out_dir/step_N``).
        settings: Everything else of the training; its steps and seed are replaced.
        dtype: Type of the stored weights.
        device: Where to train.
        progress: Called after each step.

    Raises:
        ModelError: There is too little text for one sequence.
        ConfigError: The preset is unknown, or a checkpoint lies beyond the training.
    """
    documents = list(texts)
    tokenizer = train_tokenizer(documents, n_vocab) if tokenizer is None else tokenizer
    model = new_model(preset, tokenizer.get_vocab_size(), tokenizer.token_to_id(EOD), seed).to(device)
    context = PRESETS[preset].context
    packed = pack_texts(documents, tokenizer, context)
    if not len(packed.sequences):
        raise ModelError(
            f"{len(documents)} documents give {len(packed.remainder)} tokens, less than one sequence of {context}; "
            "give more text"
        )
    run, saved = train_and_save(
        model,
        packed.sequences,
        replace(settings or TrainingSettings(steps), steps=steps, seed=seed),
        {**{step: out_dir / f"step_{step}" for step in checkpoints if step < steps}, steps: out_dir},
        write_tokenizer=lambda folder: save_tokenizer(tokenizer, folder, context),
        state_dir=out_dir,
        validation=pack_texts(validation, tokenizer, context).sequences if validation else None,
        about={"preset": preset, "shape": asdict(PRESETS[preset]), "n_tokens_dropped": len(packed.remainder)},
        dtype=dtype,
        progress=progress,
    )
    (out_dir / CHECKPOINT).unlink(missing_ok=True)
    return ReferenceModel(
        folder=out_dir,
        n_parameters=sum(p.numel() for p in model.parameters()),
        n_tokens=int(packed.sequences.size),
        n_dropped=len(packed.remainder),
        losses=run.losses,
        validation_nll=saved[-1].validation_nll,
        checkpoints={model.step: model.folder for model in saved[:-1]},
    )


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: str = "float32") -> None:
    """Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json; the model is unchanged."""
    save_weights(model, folder, dtype)
    save_tokenizer(tokenizer, folder, int(model.config.max_position_embeddings))
