"""Sentences of the lines that C4 keeps, and words of the new texts; see `corpusmill.rules.segment`."""

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.gopher_kernels import BOOLS, FLOATS, Row
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part
from corpusmill.rules.compiled.lexicon_arrays import (
    CHUNK_LENGTH,
    CHUNK_TOKENS,
    FLAGS,
    INTS,
    LEXICON,
    OPEN_AFTER,
    OPEN_AFTER_MARK,
    ROWS,
    STARTS,
    STARTS_AFTER_MARK,
    UNUSABLE,
    LexiconArrays,
)
from corpusmill.rules.compiled.line_rewriting import (
    LINE_FIRST_CHUNK,
    LINE_STOP,
    LINE_STOP_CHUNK,
    LINE_TEXT,
    SENTENCES,
)

Numbers = npt.NDArray[np.int32]

_SPACE = 32


@part
def _sentences(
    data: Bytes,
    chunk_starts: Numbers,
    chunk_numbers: Numbers,
    first: int,
    stop: int,
    end: int,
    chunks: Numbers,
) -> int:
    """Returns the sentences of a line: white space between chunks other than one space is a token.

    Args:
        data: UTF-8 that holds the line.
        chunk_starts: First byte of each chunk.
        chunk_numbers: Their numbers.
        first: First chunk of the line.
        stop: Behind its last chunk.
        end: Where the line ends, -1 for: with its last chunk.
        chunks: The lexicon's rows.
    """
    n, mark = 1, False
    for k in range(first, stop):
        number = chunk_numbers[k]
        n += chunks[number, STARTS_AFTER_MARK if mark else STARTS]
        mark = (chunks[number, FLAGS] & (OPEN_AFTER_MARK if mark else OPEN_AFTER)) != 0
        behind = chunk_starts[k] + chunks[number, CHUNK_LENGTH]
        gap_end = chunk_starts[k + 1] if k + 1 < stop else end
        if gap_end > behind and not (gap_end == behind + 1 and data[behind] == _SPACE):
            n += mark
            mark = False
    return n


@kernel(ROWS, BYTES, INTS, INTS, BYTES, INTS, INTS, INTS, LEXICON, INTS, BOOLS, FLOATS)
def count_sentences(
    lines: Numbers,
    old: Bytes,
    old_chunk_starts: Numbers,
    old_chunk_numbers: Numbers,
    new: Bytes,
    changed_first_chunk: Numbers,
    changed_chunk_starts: Numbers,
    changed_chunk_numbers: Numbers,
    lexicon: LexiconArrays,
    n_words: Numbers,
    unusable: npt.NDArray[np.uint8],
    measures: Row,
) -> None:
    """Adds the sentences and words of each kept line to those of its text.

    Args:
        lines: The kept lines, in order; see `corpusmill.rules.compiled.line_rewriting`.
        old: UTF-8 of the old texts, whose chunks unchanged lines have.
        old_chunk_starts: First byte of each of those chunks.
        old_chunk_numbers: Their numbers.
        new: UTF-8 of the new texts.
        changed_first_chunk: Chunks before each changed line in their own scan, (changed + 1,).
        changed_chunk_starts: First byte of each of those chunks in ``new``.
        changed_chunk_numbers: Their numbers.
        lexicon: Whose chunks are all known.
        n_words: Words of the new texts, zero before.
        unusable: Set for texts in which a changed line has an unusable chunk.
        measures: The C4 measures, whose sentences are zero before.
    """
    chunks, changed = lexicon.chunks, 0
    for line in lines:
        d = line[LINE_TEXT]
        if line[LINE_FIRST_CHUNK] >= 0:
            first, stop = line[LINE_FIRST_CHUNK], line[LINE_STOP_CHUNK]
            data, chunk_starts, chunk_numbers = old, old_chunk_starts, old_chunk_numbers
            end = -1
        else:
            first, stop = changed_first_chunk[changed], changed_first_chunk[changed + 1]
            data, chunk_starts, chunk_numbers = new, changed_chunk_starts, changed_chunk_numbers
            end = line[LINE_STOP]
            changed += 1
        for k in range(first, stop):
            number = chunk_numbers[k]
            n_words[d] += chunks[number, CHUNK_TOKENS]
            unusable[d] |= np.uint8((chunks[number, FLAGS] & UNUSABLE) != 0)
        measures[d, SENTENCES] += _sentences(data, chunk_starts, chunk_numbers, first, stop, end, chunks)
