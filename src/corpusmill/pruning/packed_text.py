"""Packed token sequences on disk: written as a stream, read as a memory map, so that no list ever holds a corpus.

The packing is that of `corpusmill.pruning.packing`: each document closed by the end-of-document token, all of them
concatenated and cut; what fills no sequence at the end is dropped and counted. Ids take two bytes where the vocabulary
allows it, else four. Memory is bounded by one batch of texts, whatever the size of the corpus.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError, ModelError

BATCH_CHARACTERS = 1_000_000
"""Text that is encoded at one time."""
TOKENS, FACTS = "tokens.bin", "tokens.json"


@dataclass(frozen=True)
class PackedText:
    """What lies in a folder of packed text.

    Attributes:
        context: Tokens of a sequence.
        n_sequences: Sequences.
        n_documents: Documents, empty ones too.
        n_dropped: Tokens at the end that filled no sequence.
        n_bytes: UTF-8 bytes of the documents.
        dtype: numpy name of an id's type, little endian.
        sha256: Digest of the tokens' file.
    """

    context: int
    n_sequences: int
    n_documents: int
    n_dropped: int
    n_bytes: int
    dtype: str
    sha256: str

    @property
    def n_tokens(self) -> int:
        """Tokens in whole sequences."""
        return self.n_sequences * self.context

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that a token stands for on average, the end-of-document tokens included."""
        return self.n_bytes / max(self.n_tokens + self.n_dropped, 1)


def write_packed_text(
    texts: Iterable[str], tokenizer: Any, context: int, folder: Path, *, max_sequences: int | None = None
) -> PackedText:
    """Encodes and packs texts into a folder; the facts are written last, so a folder that has them is whole.

    Args:
        texts: Documents, read once.
        tokenizer: A `corpusmill.modeling.load.TextTokenizer`, or anything with its ``encode_batch``, ``eod_id`` and
            ``n_vocab``.
        context: Tokens of a sequence, at least 2.
        folder: Folder to write, made if missing.
        max_sequences: Where to stop; the texts beyond are not read.

    Raises:
        ConfigError: The context is too small, or the tokenizer names no end-of-document token.
    """
    if context < 2:
        raise ConfigError(f"context={context!r} of packed sequences must be at least 2")
    if tokenizer.eod_id is None:
        raise ConfigError(
            "the tokenizer names no end-of-document token, so documents cannot be told apart: give eos_token"
        )
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{TOKENS}.{os.getpid()}"
    dtype = np.dtype("<u2") if tokenizer.n_vocab <= 1 << 16 else np.dtype("<u4")
    limit = None if max_sequences is None else max_sequences * context
    digest, counts = hashlib.sha256(), _Counts()
    with scratch.open("wb") as file:
        rest = np.empty(0, dtype)
        for ids in _encoded(texts, tokenizer, dtype, counts):
            rest = np.concatenate([rest, ids])
            whole = len(rest) // context * context
            if limit is not None:
                whole = min(whole, limit - counts.tokens)
            data = rest[:whole].tobytes()
            digest.update(data)
            file.write(data)
            counts.tokens += whole
            rest = rest[whole:]
            if counts.tokens == limit:
                break
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, folder / TOKENS)
    facts = PackedText(
        context=context,
        n_sequences=counts.tokens // context,
        n_documents=counts.documents,
        n_dropped=len(rest),
        n_bytes=counts.bytes,
        dtype=dtype.str,
        sha256=digest.hexdigest(),
    )
    (folder / FACTS).write_text(json.dumps(asdict(facts), sort_keys=True) + "\n", encoding="utf-8")
    return facts


def read_facts(folder: Path) -> PackedText | None:
    """Returns what a folder of packed text holds, None where it is not whole."""
    try:
        return PackedText(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def open_sequences(folder: Path, facts: PackedText) -> np.ndarray:
    """Returns the sequences [n, context] as a read-only memory map (an empty array where there are none).

    Raises:
        ModelError: The file is not as long as its facts say.
    """
    dtype = np.dtype(facts.dtype)
    path = folder / TOKENS
    size = path.stat().st_size if path.is_file() else -1
    if size != facts.n_tokens * dtype.itemsize:
        raise ModelError(
            f"packed text {str(path)!r} has {size} bytes, expected {facts.n_tokens * dtype.itemsize}; it was changed "
            "or cut: delete its folder and pack the corpus again"
        )
    shape = (facts.n_sequences, facts.context)
    return np.empty(shape, dtype) if not facts.n_sequences else np.memmap(path, dtype, "r", shape=shape)


@dataclass
class _Counts:
    documents: int = 0
    bytes: int = 0
    tokens: int = 0


def _encoded(texts: Iterable[str], tokenizer: Any, dtype: np.dtype[Any], counts: _Counts) -> Iterator[np.ndarray]:
    """Yields the ids of a batch of documents, each closed by the end token."""
    for batch in _batches(texts):
        counts.documents += len(batch)
        counts.bytes += sum(len(text.encode()) for text in batch)
        closed = [[*ids, tokenizer.eod_id] for ids in tokenizer.encode_batch(batch)]
        yield np.fromiter((i for ids in closed for i in ids), dtype, sum(map(len, closed)))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(replace_surrogates(text)[0])
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
