"""Gopher's repetition and quality measures; see `corpusmill.rules.gopher_repetition` and ``gopher_quality``."""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes, add, multiply, power
from corpusmill.rules.compiled.document_scan import LONGS
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part
from corpusmill.rules.compiled.lexicon_arrays import (
    ALPHA,
    CHUNK_TOKENS,
    FIRST_TOKEN,
    FLAGS,
    INTS,
    LEXICON,
    N_STOP_WORDS,
    NAMED,
    NAMED_POINTS,
    STOP_WORDS_IN,
    TOKEN_LENGTH,
    TOKEN_POINTS,
    UNUSABLE,
    LexiconArrays,
)
from corpusmill.rules.compiled.piece_repetition import repeated_pieces, split_at_newlines
from corpusmill.rules.compiled.utf8 import NEWLINE, line_end_width, n_points, strip_left, strip_right
from corpusmill.rules.compiled.word_repetition import repeated_points, top_n_gram_points
from corpusmill.rules.compiled.workspace import WORKSPACE, Workspace, next_epoch

Numbers = npt.NDArray[np.int32]
Row = npt.NDArray[np.float64]

FLOATS = numba.types.Array(numba.float64, 2, "C")
BOOLS = numba.types.Array(numba.uint8, 1, "C")

REPETITION_MEASURES = (
    "gopher_repetition_n_chars",
    "gopher_repetition_dup_para_frac",
    "gopher_repetition_dup_para_char_frac",
    "gopher_repetition_dup_line_frac",
    "gopher_repetition_dup_line_char_frac",
    *(f"gopher_repetition_top_{n}_gram" for n in (2, 3, 4)),
    *(f"gopher_repetition_dup_{n}_grams" for n in range(5, 11)),
)
"""Columns that `measure_repetition` fills; NaN stands for null."""
QUALITY_MEASURES = (
    "gopher_quality_bullet_line_ratio",
    "gopher_quality_end_ellipsis_line_ratio",
    "gopher_quality_n_words",
    "gopher_quality_mean_word_length",
    "gopher_quality_hash_ratio",
    "gopher_quality_ellipsis_ratio",
    "gopher_quality_alpha_word_ratio",
    "gopher_quality_n_stop_words",
)
"""Columns that `measure_quality` fills."""

_FULL_STOP, _HASH, _DASH = 46, 35, 45


@part
def _measure_pieces(
    data: Bytes, start: int, stop: int, run: int, n_chars: int, lexicon: LexiconArrays, workspace: Workspace, row: Row
) -> None:
    pieces = split_at_newlines(data, start, stop, run, workspace.piece_starts, workspace.piece_stops)
    n, n_repeated = repeated_pieces(
        data,
        workspace.piece_starts,
        workspace.piece_stops,
        pieces,
        workspace.table,
        next_epoch(workspace),
        lexicon.seeds[0],
    )
    row[0], row[1] = n / pieces, n_repeated / n_chars


@part
def _collect_words(lexicon: LexiconArrays, chunks: Numbers, workspace: Workspace) -> int:
    """Writes a document's words into the workspace and returns how many there are."""
    n = 0
    workspace.ends[0] = workspace.byte_ends[0] = 0
    prefix = np.uint64(0)
    workspace.prefixes[0] = prefix
    rows, listed, tokens, hashes = lexicon.chunks, lexicon.listed, lexicon.tokens, lexicon.token_hashes
    words, ends, byte_ends, prefixes = workspace.words, workspace.ends, workspace.byte_ends, workspace.prefixes
    powers = lexicon.powers
    for chunk in chunks:
        first = rows[chunk, FIRST_TOKEN]
        for k in range(first, first + rows[chunk, CHUNK_TOKENS]):
            token = listed[k]
            length = tokens[token, TOKEN_LENGTH]
            prefix = add(multiply(prefix, power(powers, length)), hashes[token])
            words[n] = token
            ends[n + 1] = ends[n] + tokens[token, TOKEN_POINTS]
            byte_ends[n + 1] = byte_ends[n] + length
            prefixes[n + 1] = prefix
            n += 1
    return n


@part
def _measure_n_grams(lexicon: LexiconArrays, workspace: Workspace, n_words: int, n_chars: int, row: Row) -> None:
    words, ends = workspace.words[:n_words], workspace.ends
    for n in range(2, 5):
        epoch = next_epoch(workspace)
        top = top_n_gram_points(words, ends, n, workspace.table, workspace.hits, epoch, lexicon.seeds[0])
        if top >= 0:
            row[n - 2] = top / n_chars
    for n in range(5, 11):
        epoch = next_epoch(workspace)
        repeated = repeated_points(
            lexicon, words, ends, workspace.prefixes, workspace.byte_ends, n, workspace.table, epoch
        )
        row[n - 2] = repeated / n_chars


@part
def _measure_lines(data: Bytes, start: int, stop: int, row: Row) -> None:
    n = n_bullets = n_ellipses = 0
    line = i = start
    while i < stop:
        c = data[i]
        width = line_end_width(data, i, stop) if c < 32 or c >= 0x80 else 0
        if width == 0:
            i += 1
            continue
        n += 1
        n_bullets += _begins_with_bullet(data, line, i)
        n_ellipses += _ends_in_ellipsis(data, line, i)
        i += width
        line = i
    if line < stop:
        n += 1
        n_bullets += _begins_with_bullet(data, line, stop)
        n_ellipses += _ends_in_ellipsis(data, line, stop)
    if n:
        row[0], row[1] = n_bullets / n, n_ellipses / n


@part
def _begins_with_bullet(data: Bytes, start: int, stop: int) -> bool:
    i = strip_left(data, start, stop)
    if i >= stop:
        return False
    return data[i] == _DASH or (data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA2)


@part
def _ends_in_ellipsis(data: Bytes, start: int, stop: int) -> bool:
    i = strip_right(data, start, stop)
    if i - start < 3:
        return False
    if data[i - 1] == _FULL_STOP:
        return data[i - 2] == _FULL_STOP and data[i - 3] == _FULL_STOP
    return data[i - 1] == 0xA6 and data[i - 2] == 0x80 and data[i - 3] == 0xE2


@part
def _measure_words(data: Bytes, start: int, stop: int, lexicon: LexiconArrays, chunks: Numbers, row: Row) -> None:
    n = n_named = n_named_points = n_alpha = stop_words = 0
    rows = lexicon.chunks
    for chunk in chunks:
        n += rows[chunk, CHUNK_TOKENS]
        n_named += rows[chunk, NAMED]
        n_named_points += rows[chunk, NAMED_POINTS]
        n_alpha += rows[chunk, ALPHA]
        stop_words |= rows[chunk, STOP_WORDS_IN]
    n_hashes, n_ellipses = _symbols(data, start, stop)
    row[0] = n_named
    if n_named:
        row[1] = n_named_points / n_named
    if n:
        row[2], row[3], row[4] = n_hashes / n, n_ellipses / n, n_alpha / n
    n_stop_words = 0
    for word in range(N_STOP_WORDS):
        n_stop_words += (stop_words >> word) & 1
    row[5] = n_stop_words


@part
def _symbols(data: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Returns how many hash signs and ellipses there are; three full stops are one, not overlapping."""
    n_hashes = n_ellipses = stops = 0
    for i in range(start, stop):
        c = data[i]
        if c == _FULL_STOP:
            stops += 1
            if stops == 3:
                n_ellipses += 1
                stops = 0
            continue
        stops = 0
        n_hashes += c == _HASH
        n_ellipses += c == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA6
    return n_hashes, n_ellipses


@kernel(BYTES, LONGS, LONGS, LEXICON, INTS, INTS, INTS, INTS, BOOLS)
def count_documents(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lexicon: LexiconArrays,
    first_chunk: Numbers,
    chunk_numbers: Numbers,
    n_words: Numbers,
    n_lines: Numbers,
    unusable: npt.NDArray[np.uint8],
) -> None:
    """Counts words and line ends of each document, and marks those with an unusable chunk."""
    chunks = lexicon.chunks
    for d in range(len(starts)):
        n_words[d] = n_lines[d] = unusable[d] = 0
        for k in range(first_chunk[d], first_chunk[d + 1]):
            number = chunk_numbers[k]
            n_words[d] += chunks[number, CHUNK_TOKENS]
            unusable[d] |= np.uint8((chunks[number, FLAGS] & UNUSABLE) != 0)
        for i in range(starts[d], stops[d]):
            c = data[i]
            n_lines[d] += c == NEWLINE or ((c < 32 or c >= 0x80) and line_end_width(data, i, stops[d]) > 0)


@kernel(BYTES, LONGS, LONGS, LEXICON, INTS, INTS, BOOLS, WORKSPACE, FLOATS)
def measure_repetition(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lexicon: LexiconArrays,
    first_chunk: Numbers,
    chunk_numbers: Numbers,
    english: npt.NDArray[np.uint8],
    workspace: Workspace,
    measures: Row,
) -> None:
    """Fills `REPETITION_MEASURES` of documents; those on words only where ``english`` is set.

    Args:
        data: UTF-8 of the texts.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        lexicon: Whose chunks are all known.
        first_chunk: Chunks before each text, (n + 1,).
        chunk_numbers: Their numbers.
        english: 1 where the measures on words are wanted, (n,).
        workspace: Room for the longest text.
        measures: Filled, (n, len(REPETITION_MEASURES)), NaN before.
    """
    for d in range(len(starts)):
        n_chars = n_points(data, starts[d], stops[d])
        measures[d, 0] = n_chars
        if n_chars == 0:
            continue
        left = strip_left(data, starts[d], stops[d])
        right = strip_right(data, left, stops[d])
        _measure_pieces(data, left, right, 2, n_chars, lexicon, workspace, measures[d, 1:3])
        _measure_pieces(data, starts[d], stops[d], 1, n_chars, lexicon, workspace, measures[d, 3:5])
        if english[d]:
            n = _collect_words(lexicon, chunk_numbers[first_chunk[d] : first_chunk[d + 1]], workspace)
            _measure_n_grams(lexicon, workspace, n, n_chars, measures[d, 5:])


@kernel(BYTES, LONGS, LONGS, LEXICON, INTS, INTS, BOOLS, FLOATS)
def measure_quality(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lexicon: LexiconArrays,
    first_chunk: Numbers,
    chunk_numbers: Numbers,
    english: npt.NDArray[np.uint8],
    measures: Row,
) -> None:
    """Fills `QUALITY_MEASURES` of documents, (n, len(QUALITY_MEASURES)), NaN before; see `measure_repetition`."""
    for d in range(len(starts)):
        _measure_lines(data, starts[d], stops[d], measures[d, :2])
        if english[d]:
            chunks = chunk_numbers[first_chunk[d] : first_chunk[d + 1]]
            _measure_words(data, starts[d], stops[d], lexicon, chunks, measures[d, 2:])
