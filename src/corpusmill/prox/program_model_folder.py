"""The folder of a fine-tuned program-writing model, and how it is to be run.

Beside what transformers writes and the tokenizer's files lies ``corpusmill.json``: what the model is for, the prompt
ids, window and limits that it was trained with, how it was made, how good it is. A model that stands without it (a
public refiner) is run as the public ones are.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.finetuning_settings import Task
from corpusmill.prox.program_model_base import copy_tokenizer

Config = TypeVar("Config", DocRefinementConfig, ChunkRefinementConfig)

RECORD, LOSSES = "corpusmill.json", "losses.json"
FORMAT = "corpusmill-program-model/1"
"""Version of the record; another one is refused."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """Returns a model's record, None where the folder has none.

    Raises:
        ModelError: The record is damaged or of another version.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = record["format"] == FORMAT and record["task"] in ("document", "chunk") and bool(record["inference"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{RECORD} of model {folder.name!r} cannot be read: {error!r}; train the model again"
        ) from error
    if not known:
        raise ModelError(
            f"{RECORD} of model {folder.name!r} has format={record['format']!r}, task={record['task']!r}; expected "
            f"{FORMAT!r} and 'document' or 'chunk'; train the model again"
        )
    return record


def as_trained(config: Config, folder: Path) -> Config:
    """Returns a stage's settings with what a model's record says in place of those that are left at their defaults.

    So a model that was trained on other prompts or windows than the public refiners' runs as it was trained, whoever
    names it: a recipe, a command, an evaluation. A setting that differs from its default stays, and a folder without a
    record (a public refiner) changes nothing.

    Args:
        config: Settings that name the model.
        folder: Its folder.

    Raises:
        ConfigError: The model was trained for the other stage.
        ModelError: The record is damaged or of another version.
    """
    record = read_record(folder)
    if record is None:
        return config
    stage: Task = "document" if isinstance(config, DocRefinementConfig) else "chunk"
    if record["task"] != stage:
        raise ConfigError(
            f"model {folder.name!r} was trained for the {record['task']} stage, not for the {stage} stage; use one "
            f"that was made with task={stage!r}"
        )
    given, fields = config.model_dump(), type(config).model_fields
    trained = {
        name: value
        for name, value in record["inference"].items()
        if name not in fields or given[name] == fields[name].default
    }
    return type(config).load({**given, **trained})


def doc_config(folder: Path, **fields: Any) -> DocRefinementConfig:
    """Returns settings of the document stage for a model folder; ``fields`` add to what its record says."""
    return as_trained(DocRefinementConfig.load({"model": str(folder), **fields}), folder)


def chunk_config(folder: Path, **fields: Any) -> ChunkRefinementConfig:
    """Returns settings of the chunk stage for a model folder; ``fields`` add to what its record says."""
    return as_trained(ChunkRefinementConfig.load({"model": str(folder), **fields}), folder)


def check_out(out_dir: Path, base: str) -> None:
    """Checks that a model may be written to a place.

    Raises:
        ConfigError: The place is the base's own folder, or holds something that is no model of ours.
    """
    if Path(base).expanduser().is_dir() and Path(base).expanduser().resolve() == out_dir.resolve():
        raise ConfigError(f"out_dir={out_dir.name!r} is the base's own folder; expected another one")
    if out_dir.exists() and not (out_dir.is_dir() and (not any(out_dir.iterdir()) or (out_dir / RECORD).is_file())):
        raise ConfigError(
            f"out_dir={out_dir.name!r} exists and holds no {RECORD}; expected a new path, or a program model to replace"
        )


def save_weights(folder: Path, model: Any, tokenizer_folder: Path, inference: dict[str, Any], task: Task) -> None:
    """Writes a loadable model folder with a record that says how to run it; the model is unchanged."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would fill task logs
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    copy_tokenizer(tokenizer_folder, folder)
    write_record(folder, {"format": FORMAT, "task": task, "inference": inference})


def write_losses(folder: Path, losses: Sequence[float]) -> None:
    """Writes ``losses.json``: the training loss of each step, nats per program token."""
    (folder / LOSSES).write_text(json.dumps([round(loss, 4) for loss in losses]) + "\n", encoding="utf-8")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes ``corpusmill.json``."""
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


def copy_model(source: Path, target: Path) -> None:
    """Copies a model folder's files into an existing folder."""
    shutil.copytree(source, target, dirs_exist_ok=True)
