"""Lexicons in files: the shipped one, and a worker's own between runs.

A file holds chunks with their tokens, not hash tables: those depend on secrets of the process. A lexicon changes no
result, so that a file that cannot be used is an error only where somebody asked for that file.
"""

import hashlib
import json
import zipfile
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np

from corpusmill.errors import DataError
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.lexicon_arrays import (
    CHUNK_TOKENS,
    FIRST_TOKEN,
    FLAGS,
    N_CHUNK_BYTES,
    N_CHUNKS,
    N_LISTED,
    N_TOKEN_BYTES,
    N_TOKENS,
    PENDING,
    UNUSABLE,
)

FORMAT = 1
"""Version of the file's layout and of the rows."""
SHIPPED = "english_chunks.npz"

_PARTS = {
    "chunks": N_CHUNKS,
    "chunk_bytes": N_CHUNK_BYTES,
    "listed": N_LISTED,
    "tokens": N_TOKENS,
    "token_bytes": N_TOKEN_BYTES,
}


def identity(lexicon: ChunkLexicon) -> str:
    """Returns what a stored lexicon must agree on: layout, spaCy's version and exceptions, classes of characters."""
    import spacy

    classes = hashlib.blake2b(lexicon.arrays.classes.tobytes(), digest_size=8)
    for text in sorted(lexicon.tokenizer.tokenizer.rules):
        classes.update(text.encode() + b"\0")
    return json.dumps({"format": FORMAT, "spacy": spacy.__version__, "rules": classes.hexdigest()}, sort_keys=True)


def save(lexicon: ChunkLexicon, target: Path) -> None:
    """Writes a lexicon; the file appears whole or not at all."""
    arrays = {name: getattr(lexicon.arrays, name)[: int(lexicon.counts[n])] for name, n in _PARTS.items()}
    arrays["chunks"] = arrays["chunks"][arrays["chunks"][:, FLAGS] & (PENDING | UNUSABLE) == 0]
    digest = _digest(arrays)
    temporary = target.with_name(f"{target.name}.{id(lexicon):x}.partial")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, identity=np.array(identity(lexicon)), digest=np.array(digest), **arrays)
    temporary.replace(target)


def load(lexicon: ChunkLexicon, source: Path) -> None:
    """Replaces what a lexicon holds by a file's content.

    Raises:
        DataError: The file is absent, damaged, or of another version of spaCy or of this package.
    """
    try:
        with source.open("rb") as stream:
            _load(lexicon, stream, str(source))
    except OSError as error:
        raise DataError(f"lexicon {str(source)!r} cannot be read: {error}; build it anew or remove it") from error


def load_shipped(lexicon: ChunkLexicon) -> bool:
    """Replaces what a lexicon holds by the shipped one; returns False where that is of another spaCy."""
    source = resources.files("corpusmill.rules.compiled") / SHIPPED
    if not source.is_file():
        return False
    try:
        with source.open("rb") as stream:
            _load(lexicon, stream, SHIPPED)
    except DataError:
        return False
    return True


def _load(lexicon: ChunkLexicon, stream: IO[bytes], name: str) -> None:
    try:
        with np.load(stream, allow_pickle=False) as stored:
            found, digest = str(stored["identity"]), str(stored["digest"])
            arrays = {part: stored[part] for part in _PARTS}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"lexicon {name!r} is damaged: {error}; build it anew or remove it") from error
    if found != identity(lexicon):
        raise DataError(
            f"lexicon {name!r} was made with {found}, expected {identity(lexicon)}; build it anew or remove it"
        )
    if digest != _digest(arrays) or not _sound(arrays):
        raise DataError(f"lexicon {name!r} is damaged: its digest is not that of its content; build it anew")
    counts = np.zeros(8, dtype=np.int64)
    for part, n in _PARTS.items():
        counts[n] = len(arrays[part])
    lexicon.replace(arrays, counts)


def _sound(arrays: dict[str, Any]) -> bool:
    """Returns whether kernels can read the arrays without leaving them."""
    chunks, listed = arrays["chunks"], arrays["listed"]
    ends = chunks[:, FIRST_TOKEN].astype(np.int64) + chunks[:, CHUNK_TOKENS]
    return bool(
        (ends <= len(listed)).all()
        and (len(listed) == 0 or (listed.min() >= 0 and listed.max() < len(arrays["tokens"])))
        and not (chunks[:, FLAGS] & (PENDING | UNUSABLE)).any()
    )


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode() + str(arrays[name].dtype).encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
