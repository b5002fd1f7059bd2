"""The scan that all rules share: whitespace chunks of each text, as numbers of the lexicon."""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes, hash_bytes
from corpusmill.rules.compiled.chunk_split import N_SCRATCH, Scratch, split_chunk
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part
from corpusmill.rules.compiled.lexicon_arrays import (
    FLAGS,
    INTS,
    LEXICON,
    PENDING,
    LexiconArrays,
    add_chunk,
    find_chunk,
    has_room,
)
from corpusmill.rules.compiled.utf8 import point_width, space_width

LONGS = numba.types.Array(numba.int64, 1, "C")

TEXT, BYTE, CHUNK, NEEDED = range(4)
"""Fields of the scan's cursor: text and byte where it goes on, chunks found so far, bytes of room that it lacks."""


@part
def _chunk_stop(data: Bytes, i: int, stop: int) -> int:
    """Returns where the chunk that begins at i ends."""
    while i < stop:
        c = data[i]
        if 33 <= c < 0x80 or (c > 0xC2 and c != 0xE1 and c != 0xE2 and c != 0xE3):
            i += point_width(c)
        elif space_width(data, i):
            return i
        else:
            i += point_width(c)
    return stop


@part
def _add(lexicon: LexiconArrays, data: Bytes, start: int, stop: int, h: np.uint64, place: int, scratch: Scratch) -> int:
    """Returns the number of a new chunk, -1 where there is no room for it."""
    if not has_room(lexicon, stop - start):
        return -1
    number = add_chunk(lexicon, data, start, stop, h, place)
    if not split_chunk(lexicon, data, start, stop, number, scratch):
        lexicon.chunks[number, FLAGS] = PENDING
    return number


@kernel(BYTES, LONGS, LONGS, LEXICON, LONGS, INTS, INTS, INTS)
def scan(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lexicon: LexiconArrays,
    cursor: npt.NDArray[np.int64],
    first_chunk: npt.NDArray[np.int32],
    chunk_starts: npt.NDArray[np.int32],
    chunk_numbers: npt.NDArray[np.int32],
) -> bool:
    """Finds the chunks of texts, from the cursor on; returns False where the lexicon must grow first.

    Args:
        data: UTF-8 of the texts.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        lexicon: The lexicon, to which unknown chunks are added.
        cursor: Where to go on, (4,); all zero at first, but the byte, which is that of the first text.
        first_chunk: Number of chunks before each text, (n + 1,), filled.
        chunk_starts: First byte of each chunk, filled.
        chunk_numbers: Number of each chunk in the lexicon, filled.
    """
    scratch = np.empty(N_SCRATCH, dtype=np.int32)
    slots, chunks, chunk_bytes, seed = lexicon.chunk_slots, lexicon.chunks, lexicon.chunk_bytes, lexicon.seeds[0]
    k = cursor[CHUNK]
    for text in range(cursor[TEXT], len(starts)):
        i, stop = starts[text], stops[text]
        if text == cursor[TEXT] and cursor[BYTE] > i:
            i = cursor[BYTE]
        else:
            first_chunk[text] = k
        while i < stop:
            width = space_width(data, i)
            if width:
                i += width
                continue
            end = _chunk_stop(data, i, stop)
            h = hash_bytes(data, i, end, seed)
            number = find_chunk(slots, chunks, chunk_bytes, data, i, end, h)
            if number < 0:
                number = _add(lexicon, data, i, end, h, -1 - number, scratch)
            if number < 0:
                cursor[TEXT], cursor[BYTE], cursor[CHUNK], cursor[NEEDED] = text, i, k, end - i
                return False
            chunk_starts[k], chunk_numbers[k] = i, number
            k += 1
            i = end
    first_chunk[len(starts)] = k
    cursor[CHUNK] = k
    return True
