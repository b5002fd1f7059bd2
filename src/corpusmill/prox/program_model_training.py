"""Trains a program-writing language model from labelled files, with the signature that all trainers share.

Labelled pages become chunk examples: the program removes the lines marked for removal. An unsure line stays in the text
and is removed with its neighbours where the nearest known lines on both sides go, else it is kept; it is never scored.
"""

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.errors import PermanentDataError
from corpusmill.prox.finetuning_loop import Progress
from corpusmill.prox.finetuning_settings import FinetuningSettings
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE, LabelledPage, read_labelled_pages
from corpusmill.prox.line_labeller import program_of
from corpusmill.prox.program_model_base import NEW
from corpusmill.prox.program_model_folder import chunk_config
from corpusmill.prox.refiner import load_chunk_refiner
from corpusmill.prox.refiner_evaluation import evaluate_pages
from corpusmill.prox.refiner_finetuning import finetune_refiner
from corpusmill.prox.training_examples import ChunkExample, Provenance, read_examples, write_examples

PAGE_SETTINGS: dict[str, Any] = {"keep_share": None}
"""On pages. Full pages keep the mix they have: a refiner meets the same one, and a page kept by mistake keeps all."""
SCRATCH_SETTINGS: dict[str, Any] = {**PAGE_SETTINGS, "batch_examples": 8, "context": 1024, "window_tokens": 700}
"""On pages, for a base from scratch: short windows and small steps, because such a run has minutes on a CPU."""


def train_program_model(
    train_file: Path,
    dev_file: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
    base: str = "new:tiny",
    settings: FinetuningSettings | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fine-tunes a base on labelled pages or training examples; returns its quality as it stands in the folder.

    Trained from scratch in minutes on a CPU such a model is weak; it is meant for a pretrained base and a GPU.

    Args:
        train_file: Labelled pages (``lines``, ``remove``, ``unsure``, ``domain``), or training examples of one kind:
            chunks or documents.
        dev_file: The same, of other domains; they choose the checkpoint and are measured.
        out_dir: Model folder to write.
        minutes: Training time without evaluations; or
        steps: Optimiser steps; neither: 3 epochs.
        seed: Seeds everything random.
        progress: Called with one line of text for each evaluation.
        base: Folder, hub id, ``bundled:NAME`` or ``new:PRESET``.
        settings: How to train, whole or as the fields that differ from the defaults; None: the defaults, on pages
            `PAGE_SETTINGS` or `SCRATCH_SETTINGS`.

    Raises:
        ConfigError: An argument is wrong.
        PermanentDataError: A file is not in its format.
        ModelError: The base cannot be loaded, or training diverged.
    """
    length = {"minutes": minutes, "steps": steps}
    command = _command(train_file, dev_file, base, {**length, "seed": seed})
    options: dict[str, Any] = {**length, "base": base, "seed": seed, "progress": progress, "command": command}
    kind = _kind(train_file)
    if kind is not None:
        return finetune_refiner(train_file, dev_file, out_dir, task=kind, settings=_settings(settings, {}), **options)
    train, dev = read_labelled_pages(train_file), read_labelled_pages(dev_file)
    defaults = SCRATCH_SETTINGS if base.startswith(NEW) else PAGE_SETTINGS

    def measure(folder: Path, device: str, dtype: str) -> dict[str, Any]:
        scores = evaluate_pages(load_chunk_refiner(chunk_config(folder, device=device, dtype=dtype)), dev)
        del scores["docs_per_s"]  # it is not the model's
        shared = {page.domain for page in train if page.domain} & {page.domain for page in dev}
        return {"full_text": {**scores, "dev_domains_in_training": len(shared)}}

    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / name for name in ("train.jsonl", "dev.jsonl")]
        for file, source, pages in zip(files, (train_file, dev_file), (train, dev), strict=True):
            write_examples(file, page_examples(pages, source))
        return finetune_refiner(
            files[0],
            files[1],
            out_dir,
            task="chunk",
            settings=_settings(settings, defaults),
            measure=measure,
            **options,
        )


def page_examples(pages: Sequence[LabelledPage], source: Path) -> Iterator[ChunkExample]:
    """Yields one example for each page that has lines; its provenance names the file by content.

    Args:
        pages: Labelled pages.
        source: The file that they were read from.
    """
    provenance = Provenance(
        route="gold", teacher="people", source=f"{source.name} sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    )
    for page in pages:
        if page.lines:
            yield ChunkExample(
                doc_id=page.doc_id,
                lines=page.lines,
                program=program_of(settled_labels(page.labels) == REMOVE, 0),
                unsure=tuple(np.flatnonzero(page.labels == UNSURE).tolist()),
                domain=page.domain,
                provenance=provenance.model_copy(update={"details": {"tier": page.tier}}),
            )


def settled_labels(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Returns labels without unsure ones: removed where the nearest known lines on both sides are, else kept.

    At an end of the page the one known side decides; a page without known labels is kept.
    """
    rows = np.arange(len(labels))
    known = np.flatnonzero(labels != UNSURE)
    if not len(known):
        return np.full(len(labels), KEEP, dtype=np.int8)
    place = np.searchsorted(known, rows)
    after = labels[known[np.minimum(place, len(known) - 1)]]
    before = labels[known[np.maximum(np.searchsorted(known, rows, side="right") - 1, 0)]]
    return np.where((before == REMOVE) & (after == REMOVE), REMOVE, KEEP).astype(np.int8)


def _settings(given: FinetuningSettings | Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> FinetuningSettings:
    if isinstance(given, FinetuningSettings):
        return given
    return FinetuningSettings.load({**defaults, **(given or {})})


def _kind(file: Path) -> Any:
    """Returns the kind of a file's first training example, None where it holds labelled pages."""
    try:
        return next(read_examples(file)).kind
    except StopIteration:
        raise PermanentDataError(f"{file} is empty; expected labelled pages or training examples") from None
    except PermanentDataError:
        return None  # pages: their reader says what is wrong with others


def _command(train_file: Path, dev_file: Path, base: str, given: Mapping[str, float | None]) -> str:
    """Returns the command line; names without their folders, so that no machine's paths are stored."""
    named = base if base.startswith(NEW) or not Path(base).expanduser().is_dir() else Path(base).name
    parts = ["corpusmill", "build-refiner", "--kind", "program-model", "--train", train_file.name]
    length = [f"--{key}={value}" for key, value in given.items() if value is not None]
    return shlex.join([*parts, "--dev", dev_file.name, f"--base={named}", *length])
