"""Tokenizers of reference models: a byte-level BPE trained on a bounded sample, or another model's own."""

import heapq
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corpusmill.errors import ModelError
from corpusmill.modeling.load import load_tokenizer, model_folder
from corpusmill.pruning.corpus_split import place_of

EOD = "<|endoftext|>"
PAD = "<|pad|>"
_SETTINGS = "tokenizer_config.json"
_FILES = ("tokenizer*", "vocab*", "merges*", "spiece*", "*.model", "special_tokens_map.json", "added_tokens.json")


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


def save_tokenizer(tokenizer: Any, folder: Path, context: int) -> None:
    """Writes a trained tokenizer as transformers reads it: tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOD, "pad_token": PAD}
    settings["model_max_length"] = context
    _write_settings(folder, settings)


def copy_tokenizer(path_or_id: str, folder: Path, revision: str | None = None) -> None:
    """Copies another model's tokenizer files, and names its end-of-document token where only its config did.

    Raises:
        ModelError: The model has no tokenizer, or names no end-of-document token.
    """
    source = model_folder(path_or_id, revision)
    tokenizer = load_tokenizer(str(source))
    if tokenizer.eod_id is None:
        raise ModelError(
            f"tokenizer of {path_or_id!r} names no end-of-document token; set eos_token in its tokenizer_config.json"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in _FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    if load_tokenizer(str(folder)).eod_id is None:
        path = folder / _SETTINGS
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        _write_settings(folder, {**settings, "eos_token": tokenizer.decode([tokenizer.eod_id])})


def sample_texts(documents: Iterable[tuple[str, str]], n_characters: int, seed: int = 0) -> list[str]:
    """Returns texts of together at most ``n_characters``: those whose ids have the lowest keyed hashes, in that order.

    The sample does not depend on the order of the documents, and memory is bounded by it. A document that is longer
    than all that is asked for is cut, so that a sample of any corpus holds some text.

    Args:
        documents: Pairs of id and text.
        n_characters: Characters of the sample at most.
        seed: Another seed, another sample.
    """
    heap: list[tuple[int, str, str]] = []  # the highest place on top: it leaves first
    size, left = 0, (-(1 << 64), "")  # nothing above what once left comes in: the sample is a run of lowest places
    for doc_id, text in documents:
        entry = (-place_of(doc_id, seed, "tokenizer"), doc_id, text[:n_characters])
        if entry[:2] <= left:
            continue
        heapq.heappush(heap, entry)
        size += len(entry[2])
        while size > n_characters and len(heap) > 1:
            out = heapq.heappop(heap)
            size, left = size - len(out[2]), out[:2]
    return [text for _, _, text in sorted(heap, reverse=True)]


def _write_settings(folder: Path, settings: dict[str, Any]) -> None:
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
