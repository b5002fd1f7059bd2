"""Trains a reference model on packed sequences and saves it on the way, each time as a model folder of its own.

EL2N wants early checkpoints: the paper takes one model at 14 % and at 55 % of the data ("When Less is More", arXiv
2309.04564v1, section 4.5). Each saved folder can be loaded by itself and holds ``training.json`` with the loss curve up
to its step, the operations spent and the NLL on held-out text. A killed run goes on where its last checkpoint was.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.errors import ConfigError
from corpusmill.modeling.flops import n_parameters, n_without_embeddings, training_flops
from corpusmill.modeling.train_lm import Progress, TrainingRun, TrainingSettings, train_lm
from corpusmill.pruning.perplexity import mean_nll
from corpusmill.pruning.reference_card import RECORD

EVALUATION_POSITIONS = 16_384
"""Positions of one forward pass on held-out text."""


@dataclass(frozen=True)
class SavedModel:
    """One model folder that training left.

    Attributes:
        step: Optimiser steps done.
        folder: Weights, tokenizer and ``training.json``.
        validation_nll: Nats per token on held-out text, None without any.
    """

    step: int
    folder: Path
    validation_nll: float | None


def train_and_save(
    model: Any,
    sequences: np.ndarray,
    settings: TrainingSettings,
    places: Mapping[int, Path],
    *,
    write_tokenizer: Callable[[Path], None],
    state_dir: Path,
    validation: np.ndarray | None = None,
    about: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    data_id: str | None = None,
    progress: Progress | None = None,
) -> tuple[TrainingRun, list[SavedModel]]:
    """Trains the model in place and saves it after the given steps.

    Args:
        model: A causal language model of transformers.
        sequences: Token ids [n, context], an array or a memory map.
        settings: How to train.
        places: Folder to write for each step; a step beyond the last one is an error.
        write_tokenizer: Writes the tokenizer's files into a folder.
        state_dir: Folder of the resume checkpoint, which is left there: remove it when the result is stored.
        validation: Held-out sequences [m, context], measured for each saved model.
        about: Facts that every ``training.json`` repeats.
        dtype: Type of the stored weights.
        data_id: What identifies the sequences; None: their sum.
        progress: Called after each step.

    Returns:
        The loss curve, and the saved models by step.

    Raises:
        ConfigError: A step lies beyond the training.
    """
    if beyond := sorted(step for step in places if not 0 < step <= settings.steps):
        raise ConfigError(
            f"a checkpoint after step {beyond[-1]} lies outside the {settings.steps} steps of training; train longer, "
            "or leave it out"
        )
    losses: list[float] = []
    batch_tokens = settings.batch_size * sequences.shape[1]
    n = n_without_embeddings(model)
    facts = {
        **(about or {}),
        "settings": asdict(settings),
        "n_parameters": n_parameters(model),
        "n_without_embeddings": n,
        "n_tokens": int(sequences.size),
    }

    def save(step: int, trained: Any) -> None:
        if step not in places:
            return
        nll = held_out_nll(trained, validation)
        seen = step * batch_tokens
        record = {
            **facts,
            "step": step,
            "tokens_seen": seen,
            "epochs": seen / sequences.size,
            "flops": training_flops(n, seen),
            "validation_nll": nll,
        }
        places[step].mkdir(parents=True, exist_ok=True)
        (places[step] / RECORD).unlink(missing_ok=True)  # written last: a folder that has it is whole
        save_weights(trained, places[step], dtype)
        write_tokenizer(places[step])
        _write(places[step] / RECORD, record)

    run = train_lm(model, sequences, settings, state_dir, progress, save, data_id=data_id, keep_state=True)
    losses = [round(loss, 6) for loss in run.losses]
    saved = []
    for step, folder in sorted(places.items()):
        record = {**json.loads((folder / RECORD).read_text(encoding="utf-8")), "losses": losses[:step]}
        _write(folder / RECORD, record)
        saved.append(SavedModel(step, folder, record["validation_nll"]))
    return run, saved


def held_out_nll(model: Any, sequences: np.ndarray | None) -> float | None:
    """Returns nats per token over packed sequences, None where there are none; the model's mode is left as it was."""
    if sequences is None or not len(sequences):
        return None
    training = model.training
    model.eval()
    nll = sequence_nll(model, sequences, max(1, EVALUATION_POSITIONS // sequences.shape[1]))
    model.train(training)
    return nll


def sequence_nll(model: Any, sequences: np.ndarray, batch_size: int = 16) -> float | None:
    """Returns nats per token over packed sequences, None where there are none."""
    import torch

    from corpusmill.pruning.one_pass import score_batch

    total, count = 0.0, 0
    for start in range(0, len(sequences), batch_size):
        ids_BT = torch.from_numpy(sequences[start : start + batch_size].astype(np.int64))
        sums = score_batch(model, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
        total += float(sums.nll_sum.sum())
        count += int(sums.n_scored.sum())
    return float(mean_nll(total, count)) if count else None


def save_weights(model: Any, folder: Path, dtype: str = "float32") -> None:
    """Writes config.json and model.safetensors; the model is unchanged."""
    import copy

    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would fill task logs
    folder.mkdir(parents=True, exist_ok=True)
    stored = copy.deepcopy(model).to("cpu", getattr(torch, dtype))
    stored.config.dtype = getattr(torch, dtype)
    stored.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read


def _write(path: Path, record: Mapping[str, Any]) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")
    scratch.replace(path)
