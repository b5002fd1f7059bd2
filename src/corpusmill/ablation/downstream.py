"""Downstream measures on local files: minimal pairs, and fine-tuning for classification."""

import csv
import gzip
import hashlib
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from corpusmill.ablation.config import BUNDLED_PAIRS, ClassificationConfig
from corpusmill.ablation.students import Encoder, LanguageModel
from corpusmill.errors import PermanentDataError

Progress = Callable[[str], None]
GLUE_COLUMNS: dict[str, tuple[tuple[str, ...], str]] = {
    "sst2": (("sentence",), "label"),
    "mrpc": (("#1 String", "#2 String"), "Quality"),
    "qqp": (("question1", "question2"), "is_duplicate"),
    "qnli": (("question", "sentence"), "label"),
    "rte": (("sentence1", "sentence2"), "label"),
    "wnli": (("sentence1", "sentence2"), "label"),
}
"""Text columns and label column of GLUE's own files, by task."""
DEV_OF = 5
"""One row in so many measures where a task has no file for it."""


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ in one point; a model should find the first more probable.

    Attributes:
        good: The grammatical one.
        bad: The other one.
        field: Phenomenon, for the figures by field.
    """

    good: str
    bad: str
    field: str


def read_pairs(name: str) -> list[Pair]:
    """Returns the pairs of a file in BLiMP's format.

    Raises:
        PermanentDataError: The file is not there or a line has no ``sentence_good`` and ``sentence_bad``.
    """
    path = resources.files("corpusmill.ablation") / "minimal_pairs.jsonl" if name == BUNDLED_PAIRS else Path(name)
    pairs = []
    with _opened(Path(str(path))) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                field = row.get("linguistics_term") or row.get("field") or row.get("UID") or "all"
                pairs.append(Pair(row["sentence_good"], row["sentence_bad"], str(field)))
            except (ValueError, KeyError, AttributeError) as error:
                raise PermanentDataError(
                    f"{name!r} line {number}: {error!r}; expected JSON with 'sentence_good' and 'sentence_bad'"
                ) from error
    return pairs


def measure_pairs(model: LanguageModel, tokenizer: Encoder, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns the share of pairs whose good sentence has the higher total log-probability, and the share by field.

    A tie counts as wrong. Source: BLiMP, arXiv 1912.00582, section 3 (whole sentences, full likelihood).
    """
    good = model.nll(tokenizer.encode_batch([pair.good for pair in pairs]))
    bad = model.nll(tokenizer.encode_batch([pair.bad for pair in pairs]))
    right = [a < b for a, b in zip(good, bad, strict=True)]
    by_field: dict[str, list[bool]] = defaultdict(list)
    for pair, value in zip(pairs, right, strict=True):
        by_field[pair.field].append(value)
    return {
        "n": len(pairs),
        "accuracy": statistics.fmean(right) if right else math.nan,
        "by_field": {field: statistics.fmean(values) for field, values in sorted(by_field.items())},
    }


@dataclass(frozen=True)
class Example:
    """One row of a classification task: one text or two, and its class."""

    texts: tuple[str, ...]
    label: str


def read_examples(path: Path, config: ClassificationConfig) -> list[Example]:
    """Returns the rows of a GLUE TSV, CSV or JSON lines file.

    Raises:
        PermanentDataError: The file is not there, is empty, or lacks a column; the message names those it has.
    """
    texts, label = GLUE_COLUMNS[config.task] if config.task else (config.text, config.label)
    rows = _rows(path)
    if not rows:
        raise PermanentDataError(f"{str(path)!r} holds no row; expected a header and examples")
    if missing := [name for name in (*texts, label) if name not in rows[0]]:
        raise PermanentDataError(f"{str(path)!r} lacks the columns {missing}; it has {sorted(rows[0])}")
    out = []
    for number, row in enumerate(rows, 1):
        values = [row.get(name) for name in (*texts, label)]
        if any(value is None for value in values):
            raise PermanentDataError(f"{str(path)!r} row {number} is short: {str(row)[:120]}; repair the file")
        out.append(Example(tuple(str(value) for value in values[:-1]), str(values[-1])))
    return out


def _rows(path: Path) -> list[dict[str, Any]]:
    name = path.name.removesuffix(".gz")
    with _opened(path) as stream:
        if name.endswith((".jsonl", ".json")):
            return [json.loads(line) for line in stream if line.strip()]
        if name.endswith(".csv"):
            return list(csv.DictReader(stream))
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))  # GLUE's files quote nothing


def _opened(path: Path) -> TextIO:
    if not path.is_file():
        raise PermanentDataError(f"{str(path)!r} is not a file; give minimal pairs or examples on local disk")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def task_examples(config: ClassificationConfig) -> tuple[list[Example], list[Example]]:
    """Returns the rows to train on and to measure on; samples go by the hash of a row's text."""
    train = _by_hash(read_examples(Path(config.train), config))
    if config.dev is None:
        n_dev = max(len(train) // DEV_OF, 1)
        dev, train = train[:n_dev], train[n_dev:]
    else:
        dev = _by_hash(read_examples(Path(config.dev), config))
    train, dev = train[: config.max_train], dev[: config.max_dev]
    if not train:
        raise PermanentDataError(f"{config.train!r} leaves no row to train on; give more rows")
    return train, dev


def _by_hash(examples: list[Example]) -> list[Example]:
    def place(example: Example) -> bytes:
        return hashlib.blake2b("\0".join(example.texts).encode("utf-8", "surrogatepass"), digest_size=8).digest()

    return sorted(examples, key=lambda example: (place(example), example.label))


def fine_tune(
    network: Any, tokenizer: Encoder, eod: int, config: ClassificationConfig, state: Path, progress: Progress
) -> dict[str, Any]:
    """Returns the accuracy of a student after fine-tuning, with plain transformers and torch.

    Args:
        network: The student's causal language model; it is not changed.
        tokenizer: Its tokenizer.
        eod: Id between two texts and for padding.
        config: The task.
        state: Folder for the student's weights, which transformers reads into a classifier.
        progress: Receives a line for each fine-tuning.

    Returns:
        ``accuracy`` (mean over runs), ``std``, ``majority`` (share of the commonest class), ``n``.
    """
    train, dev = task_examples(config)
    labels = sorted({example.label for example in train})
    network.save_pretrained(str(state))
    positions = int(network.config.max_position_embeddings)
    encoded = {
        name: [_ids(tokenizer, example, eod, positions) for example in part]
        for name, part in (("train", train), ("dev", dev))
    }
    numbers = {label: number for number, label in enumerate(labels)}
    wanted = [numbers[example.label] for example in train]
    expected = [numbers.get(example.label, -1) for example in dev]
    accuracies = []
    for seed in range(config.runs):
        classifier = _trained_classifier(state, eod, config, encoded["train"], wanted, len(labels), seed, network)
        found = _predicted(classifier, encoded["dev"], config.batch_size)
        accuracies.append(statistics.fmean(a == b for a, b in zip(found, expected, strict=True)))
        progress(f"fine-tuning {seed + 1} of {config.runs}: accuracy {accuracies[-1]:.3f} on {len(dev)} rows")
    return {
        "accuracy": statistics.fmean(accuracies),
        "std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "majority": max(Counter(expected).values()) / len(expected),
        "n": len(dev),
        "n_classes": len(labels),
    }


def _ids(tokenizer: Encoder, example: Example, eod: int, positions: int) -> list[int]:
    parts = tokenizer.encode_batch(list(example.texts))
    room = positions // len(parts) - 1
    ids: list[int] = [eod]
    for number, part in enumerate(parts):
        ids += ([eod] if number else []) + part[:room]
    return ids


def _trained_classifier(
    folder: Path,
    eod: int,
    config: ClassificationConfig,
    sequences: Sequence[Sequence[int]],
    wanted: Sequence[int],
    n_labels: int,
    seed: int,
    network: Any,
) -> Any:
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logging.set_verbosity_error()  # that the new head is random is what is wanted
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), num_labels=n_labels, pad_token_id=eod, local_files_only=True
        ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    model.train()
    for epoch in range(config.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(sequences))
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            logits_BC = _logits(model, [sequences[i] for i in rows])
            loss = torch.nn.functional.cross_entropy(
                logits_BC, torch.tensor([wanted[i] for i in rows], device=logits_BC.device)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]  # torch's own annotation is partial
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


def _logits(model: Any, sequences: Sequence[Sequence[int]]) -> Any:
    """Returns class logits [B, C], read at each sequence's last real token."""
    from corpusmill.modeling.token_batches import pad_right

    ids_BT, mask_BT = pad_right(sequences, pad_id=model.config.pad_token_id)
    hidden_BTD = model.base_model(
        input_ids=ids_BT.to(model.device), attention_mask=mask_BT.long().to(model.device), use_cache=False
    ).last_hidden_state
    last_B = (mask_BT.sum(dim=1) - 1).to(model.device)
    return model.score(hidden_BTD[range(len(sequences)), last_B]).float()


def _predicted(model: Any, sequences: Sequence[Sequence[int]], batch_size: int) -> list[int]:
    import torch

    out: list[int] = []
    with torch.inference_mode():
        for start in range(0, len(sequences), batch_size):
            out += _logits(model, sequences[start : start + batch_size]).argmax(dim=1).tolist()
    return out
