"""Whitespace chunks with what the rules ask of their tokens, in arrays that kernels read and extend.

A chunk is found by hash and verified by its bytes. Most unknown chunks are split by `chunk_split`; the others wait,
marked `PENDING`, until `ChunkLexicon.resolve` has asked spaCy. What a lexicon holds never changes a result.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes, draw_powers, draw_seed
from corpusmill.rules.compiled.character_classes import classify, special_cases
from corpusmill.rules.compiled.lexicon_arrays import (
    CHUNK_LENGTH,
    CHUNK_START,
    FLAGS,
    N_CHUNK_BYTES,
    N_CHUNKS,
    N_LISTED,
    N_TOKEN_BYTES,
    N_TOKENS,
    PENDING,
    ROW_FIELDS,
    UNUSABLE,
    LexiconArrays,
    add_special_pairs,
    add_special_texts,
    fill_slots,
    intern_tokens,
    set_chunks,
)
from corpusmill.rules.english_tokens import EnglishTokenizer, Token
from corpusmill.rules.gopher_quality import STOP_WORDS
from corpusmill.rules.segment import ODD_NAME, measure_chunk

log = logging.getLogger(__name__)

MAX_CHUNKS = 1_000_000
"""Chunks at which a lexicon is emptied to what it was made with; about 200 MB."""
MAX_BYTES = 64_000_000
"""Bytes of chunks at which the same happens."""

_FIRST_ROOM = 1 << 12
# Arrays that grow with a count: chunks, chunk bytes, listed tokens, tokens, token bytes.
_GROW_WITH = {
    "chunks": N_CHUNKS,
    "chunk_bytes": N_CHUNK_BYTES,
    "listed": N_LISTED,
    "tokens": N_TOKENS,
    "token_hashes": N_TOKENS,
    "token_bytes": N_TOKEN_BYTES,
}


class ChunkLexicon:
    """English chunks; one per process.

    Args:
        tokenizer: Whose tokens it holds.

    Attributes:
        arrays: What kernels read; replaced when the lexicon grows.
        n_asked: Chunks that spaCy was asked about.
    """

    def __init__(self, tokenizer: EnglishTokenizer) -> None:
        self.tokenizer = tokenizer
        self.n_asked = 0
        assert all(len(mark) == 1 for mark in tokenizer.end_marks)
        classes = classify(tokenizer.tokenizer, tokenizer.end_marks)
        self.arrays = _empty(classes)
        special = special_cases(tokenizer.tokenizer)
        _, data, ends = _packed(sorted(special.texts))
        add_special_texts(self.arrays, data, ends)
        _, data, ends = _packed(word for pair in sorted(special.pairs) for word in pair)
        add_special_pairs(self.arrays, data, ends)
        _, data, ends = _packed(sorted(STOP_WORDS))
        intern_tokens(self.arrays, data, ends)
        self._base = self.counts.copy()

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How much the arrays hold; see `LexiconArrays`."""
        return self.arrays.counts

    @property
    def n_chunks(self) -> int:
        """Chunks that it holds."""
        return int(self.counts[N_CHUNKS])

    def keep_as_base(self) -> None:
        """Makes what it holds now the state to which a full lexicon goes back."""
        self._base = self.counts.copy()

    def grow(self, chunk_bytes: int, n_chunks: int, token_bytes: int, n_tokens: int) -> None:
        """Makes room for so many more chunks and tokens, at least doubling what is full."""
        wanted = self.counts.copy()
        wanted[N_CHUNK_BYTES] += chunk_bytes
        wanted[N_CHUNKS] += n_chunks
        wanted[N_TOKEN_BYTES] += token_bytes
        wanted[[N_TOKENS, N_LISTED]] += n_tokens
        new: dict[str, Any] = {
            name: _longer(getattr(self.arrays, name), int(wanted[count])) for name, count in _GROW_WITH.items()
        }
        slots: dict[str, Any] = {
            "chunk_slots": _slots_for(len(self.arrays.chunk_slots), int(wanted[N_CHUNKS])),
            "token_slots": _slots_for(len(self.arrays.token_slots), int(wanted[N_TOKENS])),
        }
        self.arrays = self.arrays._replace(**new, **slots)
        fill_slots(self.arrays)

    def replace(self, parts: Mapping[str, npt.NDArray[Any]], counts: npt.NDArray[np.int64]) -> None:
        """Replaces everything by stored arrays, which become the base; see `stored_lexicon`."""
        arrays: dict[str, Any] = {
            name: _longer(np.ascontiguousarray(part), _FIRST_ROOM) for name, part in parts.items()
        }
        self.arrays = self.arrays._replace(
            counts=counts,
            chunk_slots=_slots_for(0, int(counts[N_CHUNKS])),
            token_slots=_slots_for(0, int(counts[N_TOKENS])),
            token_hashes=np.zeros(len(arrays["tokens"]), dtype=np.uint64),
            **arrays,
        )
        fill_slots(self.arrays)
        self.keep_as_base()

    def shrink_if_full(self) -> None:
        """Goes back to the base where the lexicon holds more than `MAX_CHUNKS` or `MAX_BYTES`; between batches only."""
        if self.n_chunks <= MAX_CHUNKS and self.counts[N_CHUNK_BYTES] <= MAX_BYTES:
            return
        counts = self._base.copy()
        arrays = self.arrays
        cut: dict[str, Any] = {
            name: getattr(arrays, name)[: max(int(counts[n]), _FIRST_ROOM)].copy() for name, n in _GROW_WITH.items()
        }
        self.arrays = arrays._replace(
            counts=counts,
            chunk_slots=_slots_for(0, int(counts[N_CHUNKS])),
            token_slots=_slots_for(0, int(counts[N_TOKENS])),
            **cut,
        )
        fill_slots(self.arrays)

    def resolve(self, first: int) -> None:
        """Asks spaCy for the tokens of the pending chunks from a number on.

        A chunk that spaCy refuses, or in which it finds the name that spaCy drops from texts, becomes `UNUSABLE`.
        """
        arrays, n = self.arrays, self.n_chunks
        numbers = first + np.flatnonzero(arrays.chunks[first:n, FLAGS] & PENDING)
        if not len(numbers):
            return
        self.n_asked += len(numbers)
        words: list[str] = []
        facts = np.zeros((len(numbers), 7), dtype=np.int32)
        for k, row in enumerate(arrays.chunks[numbers]):
            start = int(row[CHUNK_START])
            text = arrays.chunk_bytes[start : start + int(row[CHUNK_LENGTH])].tobytes().decode()
            tokens = self._tokens(text)
            if tokens is None:
                facts[k, 6] = UNUSABLE
                continue
            chunk = measure_chunk(tokens, self.tokenizer.end_marks)
            flags = chunk.open_mark[0] + 2 * chunk.open_mark[1]
            facts[k] = (len(tokens), chunk.n_named, chunk.n_named_chars, chunk.n_alpha, *chunk.starts, flags)
            words += chunk.words
        n_bytes, data, ends = _packed(words)
        self.grow(0, 0, n_bytes, len(words))
        set_chunks(self.arrays, numbers.astype(np.int32), data, ends, facts)

    def _tokens(self, text: str) -> list[Token] | None:
        """Returns the tokens of a chunk, None where a document with it must go to the Python definitions."""
        try:
            tokens = self.tokenizer.tokens(text)
        except MemoryError:
            raise
        except Exception:  # spaCy may raise anything on hostile text; the Python definitions then record it
            log.debug("the tokenizer failed on a chunk", exc_info=True)
            return None
        return None if any(word == ODD_NAME for word, _ in tokens) else tokens


def _empty(classes: npt.NDArray[np.uint16]) -> LexiconArrays:
    powers = draw_powers()
    return LexiconArrays(
        counts=np.zeros(8, dtype=np.int64),
        seeds=np.array([draw_seed(), powers[1]], dtype=np.uint64),
        powers=powers,
        chunk_slots=_slots_for(0, _FIRST_ROOM),
        chunks=np.zeros((_FIRST_ROOM, ROW_FIELDS), dtype=np.int32),
        chunk_bytes=np.zeros(8 * _FIRST_ROOM, dtype=np.uint8),
        listed=np.zeros(2 * _FIRST_ROOM, dtype=np.int32),
        token_slots=_slots_for(0, _FIRST_ROOM),
        tokens=np.zeros((_FIRST_ROOM, 3), dtype=np.int32),
        token_hashes=np.zeros(_FIRST_ROOM, dtype=np.uint64),
        token_bytes=np.zeros(8 * _FIRST_ROOM, dtype=np.uint8),
        classes=classes,
        special_texts=np.zeros(1 << 12, dtype=np.uint64),
        special_pairs=np.zeros(1 << 11, dtype=np.uint64),
    )


def _slots_for(present: int, n: int) -> npt.NDArray[np.uint64]:
    """Returns empty slots for n entries, at most half of them used."""
    size = max(present, 2 * _FIRST_ROOM)
    while size < 2 * n:
        size *= 2
    return np.zeros(size, dtype=np.uint64)


def _longer(array: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Returns the array if it has n rows, else a longer one with the same beginning."""
    if n <= len(array):
        return array
    longer = np.zeros((max(n, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def _packed(texts: Iterable[str]) -> tuple[int, Bytes, npt.NDArray[np.int32]]:
    """Returns how many bytes the texts have, their bytes one after another, and where each one ends."""
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return len(data), data, np.cumsum([len(text) for text in encoded], dtype=np.int64).astype(np.int32)
