"""Fine-tunes a causal language model to write ProX programs, as the paper makes its refiners, and writes its folder.

Source: arXiv 2409.17115, appendix A: all parameters, 3 to 5 epochs, batches of 64, cosine 1e-5 to 1e-6, best checkpoint
by validation F1. Differs: content is cut in place of targets, the deciding token weighs more, and the mix is held at
35 to 60 % keeping examples (lessons of the paper's successors).
"""

import hashlib
import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import transformers

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.modeling.flops import n_parameters, n_without_embeddings, training_flops
from corpusmill.modeling.load import choose_device
from corpusmill.prox.checkpointed_training import Budget
from corpusmill.prox.finetuning_examples import EncodedExamples, ExampleEncoder, Window
from corpusmill.prox.finetuning_loop import CHECKPOINT, Finetuning, FinetuningRun, LoopPlan, Progress
from corpusmill.prox.finetuning_mix import Mix, MixPlan, plan_mix
from corpusmill.prox.finetuning_settings import FinetuningSettings, Task
from corpusmill.prox.finetuning_validation import ChunkValidation, DocumentValidation, Score, Validation
from corpusmill.prox.labeller_folder import published_folder
from corpusmill.prox.program_model_base import base_name, load_base
from corpusmill.prox.program_model_card import program_model_card
from corpusmill.prox.program_model_folder import FORMAT, check_out, copy_model, save_weights, write_losses, write_record
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Example, read_examples

DEFAULT_EPOCHS = 3.0
"""The least that the paper trained."""
Item = TypeVar("Item", DocumentExample, Window)
Measure = Callable[[Path, str, str], dict[str, Any]]
"""Called with (model folder, device, dtype) for further quality figures of the finished model."""


def finetune_refiner(
    examples_file_train: Path,
    examples_file_dev: Path,
    out_dir: Path,
    *,
    task: Task,
    base: str,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
    settings: FinetuningSettings | None = None,
    command: str | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Fine-tunes, validates and writes a program-writing model; returns its quality as it stands in the folder.

    A run that was killed goes on from its last checkpoint when it is called again with the same arguments; the
    checkpoint lies in a hidden folder beside ``out_dir`` and goes when the model is written.

    Args:
        examples_file_train: Training examples (`corpusmill.prox.training_examples`); those of the task are used.
        examples_file_dev: Examples of other domains; they choose the checkpoint and are measured.
        out_dir: Model folder to write; a program model that stands there is replaced at the end.
        task: ``document`` (keep or drop) or ``chunk`` (line edits).
        base: Folder, hub id, ``bundled:NAME``, or ``new:PRESET`` (`corpusmill.prox.program_model_base.SHAPES`).
        minutes: Training time without evaluations; or
        steps: Optimiser steps; or
        epochs: Passes over the mix. None of the three: 3 epochs.
        seed: Seeds everything random.
        progress: Called with one line of text for each evaluation.
        settings: How to train; None: the defaults.
        command: How to make the model again, for its record; None: derived from the arguments.
        measure: Gives further figures for the record.

    Raises:
        ConfigError: More than one of minutes, steps and epochs, an unknown preset, a context that is too short, or a
            place that must not be written.
        PermanentDataError: A file has no example of the task, or is not in the format.
        ModelError: The base cannot be loaded, or training diverged.
    """
    order = _Order(
        examples_file_train, examples_file_dev, task, base, base_name(base), minutes, steps, epochs, seed,
        settings or FinetuningSettings(), command,
    )  # fmt: skip
    order.check(out_dir)
    state = out_dir.parent / f".{out_dir.name}.training-{order.identity()}"
    try:
        job = _Job(order, state, progress)
        job.train()
    except Exception:
        if not (state / CHECKPOINT).is_file():  # nothing to go on from
            shutil.rmtree(state, ignore_errors=True)
        raise
    quality = job.publish(out_dir, measure)
    shutil.rmtree(state)
    return quality


@dataclass(frozen=True)
class _Order:
    """What was asked for."""

    train: Path
    dev: Path
    task: Task
    base: str
    base_name: str
    minutes: float | None
    steps: int | None
    epochs: float | None
    seed: int
    settings: FinetuningSettings
    command: str | None

    @property
    def length(self) -> dict[str, float]:
        """Returns the one length that was given, by name."""
        given = {"minutes": self.minutes, "steps": self.steps, "epochs": self.epochs}
        return {key: value for key, value in given.items() if value is not None}

    def check(self, out_dir: Path) -> None:
        if len(self.length) > 1 or any(not 0 < value < math.inf for value in self.length.values()):
            raise ConfigError(f"{self.length}: expected at most one of minutes, steps and epochs, above 0")
        check_out(out_dir, self.base)

    def budget(self, n_epoch: int) -> Budget:
        """Returns the steps or minutes to train, where an epoch has ``n_epoch`` examples."""
        if self.minutes is not None or self.steps is not None:
            return Budget(self.steps, self.minutes)
        epochs = DEFAULT_EPOCHS if self.epochs is None else self.epochs
        return Budget(max(1, math.ceil(epochs * n_epoch / self.settings.batch_examples)), None)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Sha256 of both files."""
        return {"train": _sha256(self.train), "dev": _sha256(self.dev)}

    def identity(self) -> str:
        """Returns what a checkpoint must agree with."""
        settings = self.settings.model_dump(mode="json")
        return fingerprint([FORMAT, self.digests, self.task, self.base_name, self.length, self.seed, settings])

    def record(self) -> dict[str, Any]:
        """Returns the order for the model's record; file names without folders: no machine's paths are stored."""
        length = [f"--{key}={value}" for key, value in self.length.items()]
        parts = ["finetune_refiner", self.train.name, self.dev.name, f"--task={self.task}", f"--base={self.base_name}"]
        return {
            "command": self.command or shlex.join([*parts, *length, f"--seed={self.seed}"]),
            "base": self.base_name,
            "seed": self.seed,
            "data_sha256": self.digests,
            "settings": self.settings.model_dump(mode="json"),
        }


class _Job:
    """One fine-tuning: a base, its examples as ids, the loop over them, and the folder that comes out."""

    def __init__(self, order: _Order, state: Path, progress: Progress) -> None:
        self.order, self.state, self.progress = order, state, progress
        settings = order.settings
        self.base = load_base(
            order.base,
            order.base_name,
            lambda: _texts(order.train, order.task),
            state,
            n_vocab=settings.n_vocab,
            context=settings.context,
            seed=order.seed,
            device=choose_device(settings.device),
        )
        self.device = next(self.base.model.parameters()).device
        self.encoder = ExampleEncoder(self.base.tokenizer, self.base.context, settings)
        self.examples = self.encoder.encode(_of_task(order.train, order.task))
        self.mix = _plan_mix(self.examples, settings, order.train)
        self.validation = self._validation()
        self.done = FinetuningRun()
        self.best = state

    @property
    def inference(self) -> dict[str, Any]:
        """Settings that run the model as it was trained."""
        if self.order.task == "document":
            return {"prompt_ids": "sft", "max_prompt_tokens": self.encoder.max_document_tokens}
        return {
            "prompt_ids": "sft",
            "max_prompt_tokens": self.encoder.max_chunk_tokens,
            "window_tokens": self.encoder.window_tokens,
            "max_new_tokens": self.encoder.max_target_tokens,
        }

    @property
    def dtype(self) -> str:
        """Type that the model is measured in: bfloat16 on a GPU, float32 on a CPU."""
        return "bfloat16" if self.device.type == "cuda" else "float32"

    def _validation(self) -> Validation:
        """Returns the dev sample, drawn once by the seed."""
        file, n = self.order.dev, self.order.settings.dev_examples
        rng = np.random.default_rng([self.order.seed, 3])
        if self.order.task == "document":
            documents = [e for e in _of_task(file, "document") if isinstance(e, DocumentExample)]
            return DocumentValidation(_sample(documents, n, rng, file))
        examples = (e for e in _of_task(file, "chunk") if isinstance(e, ChunkExample))
        windows = [w for e in examples for w in self.encoder.windows(e) if self.encoder.is_sent(w)]
        return ChunkValidation(_sample(windows, n, rng, file))

    def train(self) -> None:
        """Runs the loop to the end of its budget."""
        order, settings = self.order, self.order.settings

        def save(folder: Path) -> None:
            save_weights(folder, self.base.model, self.base.tokenizer_folder, self.inference, order.task)

        def validate(folder: Path) -> Score:
            return self.validation.score_folder(folder, str(self.device), self.dtype, settings.batch_tokens)

        budget = order.budget(self.mix.n_keep + self.mix.n_edit)
        plan = LoopPlan(budget, settings, order.seed, self.base.is_new, order.identity())
        rows = Mix([sequence.keeps for sequence in self.examples.sequences], self.mix, order.seed)
        loop = Finetuning(
            self.base.model, self.examples.sequences, rows, plan, self.state, save, validate, self.progress
        )
        self.done, self.best = loop.run(), loop.best_folder

    def publish(self, out_dir: Path, measure: Measure | None) -> dict[str, Any]:
        """Writes the best model's folder with its record; returns the quality."""
        quality: dict[str, Any] = {"validation": self.done.best_measures}

        def write(folder: Path) -> None:
            copy_model(self.best, folder)
            write_losses(folder, self.done.losses)
            if measure is not None:
                quality.update(measure(folder, str(self.device), self.dtype))
            record = {
                "format": FORMAT,
                "task": self.order.task,
                "inference": self.inference,
                "training": {**self.order.record(), **self._run_record()},
                "quality": {**quality, "dtype": self.dtype},
            }
            write_record(folder, record)
            (folder / "README.md").write_text(program_model_card(record), encoding="utf-8")

        published_folder(out_dir, write)
        return quality

    def _run_record(self) -> dict[str, Any]:
        """Returns what the record says of the run; no times, so that equal runs write equal folders."""
        sequences, model = self.examples.sequences, self.base.model
        n = n_without_embeddings(model)
        mean = sum(len(sequence) for sequence in sequences) / len(sequences)
        tokens = mean * self.order.settings.batch_examples * len(self.done.losses)
        n_keep = sum(sequence.keeps for sequence in sequences)
        epoch = {"n_keep": self.mix.n_keep, "n_edit": self.mix.n_edit, "keep_share": round(self.mix.keep_share, 4)}
        return {
            "examples": {
                "n_keep": n_keep,
                "n_edit": len(sequences) - n_keep,
                "skipped": dict(self.examples.skipped),
                "epoch": epoch,
            },
            "steps": len(self.done.losses),
            "best_step": self.done.best_step,
            "evaluations": [[step, round(f1, 4)] for step, f1 in self.done.history],
            "n_parameters": n_parameters(model),
            "n_without_embeddings": n,
            "flops": float(f"{training_flops(n, tokens):.3g}"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "weights": "bfloat16 autocast" if self.device.type == "cuda" else "float32",
        }


def _plan_mix(encoded: EncodedExamples, settings: FinetuningSettings, file: Path) -> MixPlan:
    if not encoded.sequences:
        raise PermanentDataError(
            f"{file.name} gives no training sequence (skipped: {dict(encoded.skipped)}); give more examples, or a base "
            "with a longer context"
        )
    n_keep = sum(sequence.keeps for sequence in encoded.sequences)
    return plan_mix(n_keep, len(encoded.sequences) - n_keep, settings.keep_share, settings.max_repeats)


def _of_task(file: Path, task: Task) -> Iterator[Example]:
    """Yields a file's examples of one task.

    Raises:
        PermanentDataError: There is none.
    """
    n = 0
    for example in read_examples(file):
        if example.kind == task:
            n += 1
            yield example
    if not n:
        raise PermanentDataError(f"{file.name} holds no example of kind {task!r}; make some, or train the other task")


def _texts(file: Path, task: Task) -> Iterator[str]:
    """Yields what a tokenizer should know: the examples' text and programs."""
    for example in _of_task(file, task):
        if isinstance(example, DocumentExample):
            yield example.text
        else:
            yield from example.lines
            yield example.program


def _sample(items: list[Item], n: int, rng: np.random.Generator, file: Path) -> list[Item]:
    if not items:
        raise PermanentDataError(f"{file.name} gives nothing to validate on; give dev examples that fit the base")
    return [items[i] for i in sorted(rng.permutation(len(items))[:n].tolist())]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PermanentDataError(f"{path} cannot be read: {error}; expected JSON lines of training examples") from error
