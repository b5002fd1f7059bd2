"""The arrays of a chunk lexicon and the kernels' way to look up and add entries."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import (
    Bytes,
    Words64,
    hash_bytes,
    hash_pair,
    polynomial,
    same_bytes,
)
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part, signed
from corpusmill.rules.compiled.utf8 import n_points

N_CHUNKS, N_CHUNK_BYTES, N_LISTED, N_TOKENS, N_TOKEN_BYTES = range(5)
"""Places in `LexiconArrays.counts`."""

(
    CHUNK_START,
    CHUNK_LENGTH,
    FIRST_TOKEN,
    CHUNK_TOKENS,
    NAMED,
    NAMED_POINTS,
    ALPHA,
    STARTS,
    STARTS_AFTER_MARK,
    FLAGS,
    STOP_WORDS_IN,
    _SPARE,
) = range(12)
"""Fields of a row of `LexiconArrays.chunks`; see `corpusmill.rules.segment.Chunk`."""
ROW_FIELDS = 12

OPEN_AFTER, OPEN_AFTER_MARK, UNUSABLE, PENDING = 1, 2, 4, 8
"""Bits of `FLAGS`: an end mark is open behind the chunk if none / one was before it; documents with the chunk go to
the Python definitions; its tokens are not known yet."""

TOKEN_START, TOKEN_LENGTH, TOKEN_POINTS = range(3)
"""Fields of a row of `LexiconArrays.tokens`."""

MOST_SPLIT_BYTES = 256
"""Bound on bytes, and so tokens, of a chunk that kernels split; the tokens of longer ones come later."""
N_STOP_WORDS = 8
"""The stop words are the first tokens of every lexicon."""


class LexiconArrays(NamedTuple):
    """A lexicon as kernels see it; arrays are longer than what they hold, ``counts`` says how much that is.

    Attributes:
        counts: See `N_CHUNKS` and so on, (8,).
        seeds: Secret seed of the hashes and base of the polynomial hash, (2,).
        powers: Powers of that base, (N_POWERS,).
        chunk_slots: Hash table: upper 32 bits of the hash, then chunk number + 1; 0 is empty, (2^k,).
        chunks: One row a chunk, (chunks, ROW_FIELDS).
        chunk_bytes: UTF-8 of the chunks.
        listed: Numbers of the chunks' tokens, chunk after chunk.
        token_slots: As ``chunk_slots``, of tokens.
        tokens: One row a token, (tokens, 3).
        token_hashes: Polynomial hash of each token, (tokens,).
        token_bytes: UTF-8 of the tokens.
        classes: See `corpusmill.rules.compiled.character_classes`.
        special_texts: Hash table of hashes of spaCy's special cases, (2^k,).
        special_pairs: The same of pairs of tokens that begin one.
    """

    counts: npt.NDArray[np.int64]
    seeds: Words64
    powers: Words64
    chunk_slots: Words64
    chunks: npt.NDArray[np.int32]
    chunk_bytes: Bytes
    listed: npt.NDArray[np.int32]
    token_slots: Words64
    tokens: npt.NDArray[np.int32]
    token_hashes: Words64
    token_bytes: Bytes
    classes: npt.NDArray[np.uint16]
    special_texts: Words64
    special_pairs: Words64


def _array(element: numba.types.Type, n_dimensions: int = 1) -> numba.types.Array:
    return numba.types.Array(element, n_dimensions, "C")


_LONGS, _WORDS = _array(numba.int64), _array(numba.uint64)
INTS, ROWS = _array(numba.int32), _array(numba.int32, 2)
LEXICON = numba.types.NamedTuple(
    (
        _LONGS,
        _WORDS,
        _WORDS,
        _WORDS,
        ROWS,
        _array(numba.uint8),
        INTS,
        _WORDS,
        ROWS,
        _WORDS,
        _array(numba.uint8),
        _array(numba.uint16),
        _WORDS,
        _WORDS,
    ),
    LexiconArrays,
)
"""Type of `LexiconArrays` in kernels."""

_LOW = np.uint64(0xFFFFFFFF)
_TOP = np.uint64(32)


@part
def has_room(lexicon: LexiconArrays, n_bytes: int) -> bool:
    """Returns whether one more chunk of that length fits, whatever its tokens are."""
    counts, few = lexicon.counts, min(n_bytes, MOST_SPLIT_BYTES)
    return (
        (counts[N_CHUNKS] + 1) * 2 <= len(lexicon.chunk_slots)
        and (counts[N_TOKENS] + few) * 2 <= len(lexicon.token_slots)
        and counts[N_CHUNKS] + 1 <= len(lexicon.chunks)
        and counts[N_CHUNK_BYTES] + n_bytes <= len(lexicon.chunk_bytes)
        and counts[N_LISTED] + few <= len(lexicon.listed)
        and counts[N_TOKENS] + few <= len(lexicon.tokens)
        and counts[N_TOKEN_BYTES] + few <= len(lexicon.token_bytes)
    )


@part
def find_chunk(
    slots: Words64,
    chunks: npt.NDArray[np.int32],
    chunk_bytes: Bytes,
    data: Bytes,
    start: int,
    stop: int,
    h: np.uint64,
) -> int:
    """Returns the chunk's number, or -1 - (its free place in the table).

    The arrays are those of a lexicon: taken out of it once, because to pass it on counts references to all of them.
    """
    mask = np.uint64(len(slots) - 1)
    place = h & mask
    while slots[place] != np.uint64(0):
        slot = slots[place]
        if slot >> _TOP == h >> _TOP:
            number = signed(slot & _LOW) - 1
            n = stop - start
            if chunks[number, CHUNK_LENGTH] == n and same_bytes(
                chunk_bytes, chunks[number, CHUNK_START], data, start, n
            ):
                return number
        place = (place + np.uint64(1)) & mask
    return -1 - signed(place)


@part
def add_chunk(lexicon: LexiconArrays, data: Bytes, start: int, stop: int, h: np.uint64, place: int) -> int:
    """Adds an empty chunk at a free place and returns its number; there must be room."""
    counts = lexicon.counts
    number, begin = counts[N_CHUNKS], counts[N_CHUNK_BYTES]
    row = lexicon.chunks[number]
    row[:] = 0
    row[CHUNK_START], row[CHUNK_LENGTH], row[FIRST_TOKEN] = begin, stop - start, counts[N_LISTED]
    for i in range(stop - start):
        lexicon.chunk_bytes[begin + i] = data[start + i]
    lexicon.chunk_slots[place] = ((h >> _TOP) << _TOP) | np.uint64(number + 1)
    counts[N_CHUNKS] = number + 1
    counts[N_CHUNK_BYTES] = begin + stop - start
    return number


@part
def intern_token(lexicon: LexiconArrays, data: Bytes, start: int, stop: int) -> int:
    """Returns the number of a token, which is added if it is new; there must be room."""
    h = hash_bytes(data, start, stop, lexicon.seeds[0])
    slots, counts, n = lexicon.token_slots, lexicon.counts, stop - start
    mask = np.uint64(len(slots) - 1)
    place = h & mask
    while slots[place] != np.uint64(0):
        slot = slots[place]
        if slot >> _TOP == h >> _TOP:
            known = signed(slot & _LOW) - 1
            row = lexicon.tokens[known]
            if row[TOKEN_LENGTH] == n and same_bytes(lexicon.token_bytes, row[TOKEN_START], data, start, n):
                return known
        place = (place + np.uint64(1)) & mask
    number, begin = counts[N_TOKENS], counts[N_TOKEN_BYTES]
    row = lexicon.tokens[number]
    row[TOKEN_START], row[TOKEN_LENGTH], row[TOKEN_POINTS] = begin, n, n_points(data, start, stop)
    for i in range(n):
        lexicon.token_bytes[begin + i] = data[start + i]
    lexicon.token_hashes[number] = polynomial(data, start, stop, lexicon.seeds[1])
    slots[place] = ((h >> _TOP) << _TOP) | np.uint64(number + 1)
    counts[N_TOKENS], counts[N_TOKEN_BYTES] = number + 1, begin + n
    return number


@part
def list_token(lexicon: LexiconArrays, chunk: int, token: int) -> None:
    """Appends a token to the last chunk of the list."""
    n = lexicon.counts[N_LISTED]
    lexicon.listed[n] = token
    lexicon.counts[N_LISTED] = n + 1
    row = lexicon.chunks[chunk]
    row[CHUNK_TOKENS] += 1
    if token < N_STOP_WORDS:
        row[STOP_WORDS_IN] |= 1 << token


@part
def contains(table: Words64, h: np.uint64) -> bool:
    """Returns whether a hash table of hashes holds one; 0 is empty."""
    mask = np.uint64(len(table) - 1)
    place = h & mask
    while table[place] != np.uint64(0):
        if table[place] == h:
            return True
        place = (place + np.uint64(1)) & mask
    return False


@part
def _insert(table: Words64, h: np.uint64) -> None:
    mask = np.uint64(len(table) - 1)
    place = h & mask
    while table[place] != np.uint64(0) and table[place] != h:
        place = (place + np.uint64(1)) & mask
    table[place] = h


@kernel(LEXICON, BYTES, INTS)
def add_special_texts(lexicon: LexiconArrays, data: Bytes, ends: npt.NDArray[np.int32]) -> None:
    """Fills ``special_texts`` with texts that follow each other in ``data``."""
    start = 0
    for stop in ends:
        _insert(lexicon.special_texts, hash_bytes(data, start, stop, lexicon.seeds[0]))
        start = stop


@kernel(LEXICON, BYTES, INTS)
def add_special_pairs(lexicon: LexiconArrays, data: Bytes, ends: npt.NDArray[np.int32]) -> None:
    """Fills ``special_pairs`` with pairs of tokens that follow each other in ``data``."""
    start = 0
    for i in range(0, len(ends), 2):
        first = hash_bytes(data, start, ends[i], lexicon.seeds[0])
        second = hash_bytes(data, ends[i], ends[i + 1], lexicon.seeds[0])
        _insert(lexicon.special_pairs, hash_pair(first, second))
        start = ends[i + 1]


@kernel(LEXICON, BYTES, INTS)
def intern_tokens(lexicon: LexiconArrays, data: Bytes, ends: npt.NDArray[np.int32]) -> None:
    """Adds tokens that follow each other in ``data``; there must be room for all of them."""
    start = 0
    for stop in ends:
        intern_token(lexicon, data, start, stop)
        start = stop


@kernel(LEXICON)
def fill_slots(lexicon: LexiconArrays) -> None:
    """Writes both hash tables anew from the rows; the tables are empty."""
    mask = np.uint64(len(lexicon.chunk_slots) - 1)
    for number in range(lexicon.counts[N_CHUNKS]):
        row = lexicon.chunks[number]
        start = row[CHUNK_START]
        h = hash_bytes(lexicon.chunk_bytes, start, start + row[CHUNK_LENGTH], lexicon.seeds[0])
        place = h & mask
        while lexicon.chunk_slots[place] != np.uint64(0):
            place = (place + np.uint64(1)) & mask
        lexicon.chunk_slots[place] = ((h >> _TOP) << _TOP) | np.uint64(number + 1)
    mask = np.uint64(len(lexicon.token_slots) - 1)
    for number in range(lexicon.counts[N_TOKENS]):
        row = lexicon.tokens[number]
        start, stop = row[TOKEN_START], row[TOKEN_START] + row[TOKEN_LENGTH]
        lexicon.token_hashes[number] = polynomial(lexicon.token_bytes, start, stop, lexicon.seeds[1])
        h = hash_bytes(lexicon.token_bytes, start, stop, lexicon.seeds[0])
        place = h & mask
        while lexicon.token_slots[place] != np.uint64(0):
            place = (place + np.uint64(1)) & mask
        lexicon.token_slots[place] = ((h >> _TOP) << _TOP) | np.uint64(number + 1)


@kernel(LEXICON, INTS, BYTES, INTS, ROWS)
def set_chunks(
    lexicon: LexiconArrays,
    numbers: npt.NDArray[np.int32],
    data: Bytes,
    ends: npt.NDArray[np.int32],
    facts: npt.NDArray[np.int32],
) -> None:
    """Gives pending chunks their tokens; there must be room for all of them.

    Args:
        lexicon: The lexicon.
        numbers: The chunks, (n,).
        data: UTF-8 of all tokens in order.
        ends: Where each token ends in it.
        facts: A row a chunk: tokens, then the fields from `NAMED` to `FLAGS`, (n, 7).
    """
    token = start = 0
    for k in range(len(numbers)):
        row = lexicon.chunks[numbers[k]]
        row[FIRST_TOKEN], row[CHUNK_TOKENS], row[STOP_WORDS_IN] = lexicon.counts[N_LISTED], 0, 0
        for _ in range(facts[k, 0]):
            list_token(lexicon, numbers[k], intern_token(lexicon, data, start, ends[token]))
            start = ends[token]
            token += 1
        for field in range(6):
            row[NAMED + field] = facts[k, 1 + field]
