"""C4's line rules, which rewrite texts; see `corpusmill.rules.c4` for what is removed and counted."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.document_scan import LONGS
from corpusmill.rules.compiled.gopher_kernels import BOOLS, FLOATS, Row
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part, signed
from corpusmill.rules.compiled.lexicon_arrays import CHUNK_LENGTH, INTS, LEXICON, LexiconArrays
from corpusmill.rules.compiled.phrase_automaton import JAVASCRIPT, LOREM, PHRASES_TYPE, POLICY, Phrases
from corpusmill.rules.compiled.utf8 import (
    NEWLINE,
    in_sorted,
    line_end_width,
    n_points,
    point_at,
    point_width,
    strip_left,
    strip_right,
)

Numbers = npt.NDArray[np.int32]

C4_MEASURES = (
    "c4_n_lines",
    "c4_n_lines_removed",
    "c4_n_sentences",
    "c4_lorem_ipsum_line",
    "c4_curly_bracket_line",
)
"""Columns of C4; sentences are counted by `corpusmill.rules.compiled.sentence_count`, the others here."""
SENTENCES = C4_MEASURES.index("c4_n_sentences")

LINE_TEXT, LINE_START, LINE_STOP, LINE_FIRST_CHUNK, LINE_STOP_CHUNK = range(5)
"""Fields of a kept line: its document, its bytes in the new texts, its chunks in the scan of the old ones, or -1
where a citation mark was removed."""

CITATIONS, END_PUNCTUATION, NO_JAVASCRIPT, NO_POLICY = range(4)
"""Places of the switches of `corpusmill.rules.c4.LineRules`."""
_CURLY = 8
"""Bit of a bracket, beside those of the phrases."""

MAX_WORD_LENGTH, MIN_WORDS = range(2)
"""Places of its numbers; NaN is off."""


class NewTexts(NamedTuple):
    """Where the rewritten texts go.

    Attributes:
        data: UTF-8 of all of them; at least one byte more a text than the old ones have.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        lines: Kept lines, (at most the number of lines, 5).
        n_lines: Kept lines and changed ones, (2,).
    """

    data: Bytes
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    lines: Numbers
    n_lines: npt.NDArray[np.int64]


NEW_TEXTS = numba.types.NamedTuple(
    (
        numba.types.Array(numba.uint8, 1, "C"),
        LONGS,
        LONGS,
        numba.types.Array(numba.int32, 2, "C"),
        LONGS,
    ),
    NewTexts,
)


class LineSettings(NamedTuple):
    """The line rules as kernels take them.

    Attributes:
        switches: See `CITATIONS` and so on, (4,).
        limits: See `MAX_WORD_LENGTH`, (2,).
        digits: Sorted decimal digits beyond ASCII, as code points.
        phrases: The automaton.
    """

    switches: Bytes
    limits: npt.NDArray[np.float64]
    digits: Numbers
    phrases: Phrases


SETTINGS = numba.types.NamedTuple(
    (BOOLS, numba.types.Array(numba.float64, 1, "C"), INTS, PHRASES_TYPE),
    LineSettings,
)


@part
def _rewrite(
    data: Bytes,
    start: int,
    stop: int,
    lexicon: LexiconArrays,
    first_chunk: Numbers,
    chunk_starts: Numbers,
    chunk_numbers: Numbers,
    d: int,
    settings: LineSettings,
    new: NewTexts,
    row: Row,
) -> int:
    """Rewrites one text and returns where free space begins behind it."""
    end = new.starts[d]
    n_lines = n_kept = 0
    row[2] = row[3] = row[4] = 0.0
    i, chunk = start, first_chunk[d]
    while i < stop:
        line = i
        while i < stop and line_end_width(data, i, stop) == 0:
            i += 1
        n_lines += 1
        left = strip_left(data, line, i)
        right = strip_right(data, left, i)
        first = chunk
        while chunk < first_chunk[d + 1] and chunk_starts[chunk] < i:
            chunk += 1
        if i < stop:
            i += line_end_width(data, i, stop)
        if _has_long_word(data, lexicon, chunk_starts, chunk_numbers, first, chunk, settings):
            continue
        begin = end + (n_kept > 0)
        behind, found = _copy_line(data, left, right, settings, new.data, begin)
        if _line_falls(new.data, begin, behind, chunk - first, settings):
            continue
        if not _line_stays(found, n_lines, settings, row):
            continue
        if n_kept:
            new.data[end] = NEWLINE
        _note_line(new, d, begin, behind, first, chunk, behind - begin != right - left)
        n_kept += 1
        end = behind
    row[0], row[1] = n_lines, n_lines - n_kept
    new.starts[d] = strip_left(new.data, new.starts[d], end)
    new.stops[d] = strip_right(new.data, new.starts[d], end)
    return end


@part
def _note_line(new: NewTexts, d: int, start: int, stop: int, first: int, behind: int, changed: bool) -> None:
    line = new.lines[new.n_lines[0]]
    line[LINE_TEXT], line[LINE_START], line[LINE_STOP] = d, start, stop
    line[LINE_FIRST_CHUNK] = -1 if changed else first
    line[LINE_STOP_CHUNK] = behind
    new.n_lines[0] += 1
    new.n_lines[1] += changed


@part
def _has_long_word(
    data: Bytes,
    lexicon: LexiconArrays,
    chunk_starts: Numbers,
    chunk_numbers: Numbers,
    first: int,
    behind: int,
    settings: LineSettings,
) -> bool:
    limit = settings.limits[MAX_WORD_LENGTH]
    chunks = lexicon.chunks
    for k in range(first, behind):
        length = chunks[chunk_numbers[k], CHUNK_LENGTH]
        if length > limit and n_points(data, chunk_starts[k], chunk_starts[k] + length) > limit:
            return True
    return False


@part
def _copy_line(data: Bytes, start: int, stop: int, settings: LineSettings, target: Bytes, end: int) -> tuple[int, int]:
    """Copies a line without citation marks; returns where it ends and what was found in it.

    What was found: bits of the phrases, `_CURLY` for a bracket.
    """
    letters, steps, reached = settings.phrases.letters, settings.phrases.steps, settings.phrases.found
    remove_citations = settings.switches[CITATIONS]
    i, state, found = start, signed(0), signed(0)
    while i < stop:
        c = data[i]
        if c == 91 and remove_citations:
            width = _citation_width(data, i, stop, settings.digits)
            if width:
                i += width
                continue
        letter = letters[c]
        if c == 0xE2 and _is_kelvin(data, i):
            letter = letters[107]
            target[end], target[end + 1] = c, data[i + 1]
            end, i, c = end + 2, i + 2, data[i + 2]
        state = signed(steps[state, letter])
        found |= reached[state] | signed(c == 123) * _CURLY
        target[end] = c
        end += 1
        i += 1
    return end, found


@part
def _is_kelvin(data: Bytes, i: int) -> bool:
    """Returns whether U+212A stands here, which is k in lower case."""
    return data[i + 1] == 0x84 and data[i + 2] == 0xAA


@part
def _citation_width(data: Bytes, start: int, stop: int, digits: Numbers) -> int:
    """Returns the bytes of the citation mark that begins here, 0 if none does."""
    i = start + 1
    while i < stop and data[i] != 93:
        if not (48 <= data[i] <= 57 or (data[i] >= 0x80 and in_sorted(digits, point_at(data, i)))):
            break
        i += point_width(data[i])
    if i < stop and data[i] == 93:
        return i + 1 - start
    for mark in (b"[edit]", b"[citation needed]"):
        if stop - start >= len(mark):
            same = True
            for k in range(len(mark)):
                same &= data[start + k] == mark[k]
            if same:
                return len(mark)
    return 0


@part
def _line_falls(text: Bytes, start: int, stop: int, n_words: int, settings: LineSettings) -> bool:
    """Returns whether the ending or the number of words removes a line."""
    if settings.switches[END_PUNCTUATION]:
        if start == stop:
            return True
        last = text[stop - 1]
        if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39):
            return True
        if last == 46 and stop - start >= 3 and text[stop - 2] == 46 and text[stop - 3] == 46:
            return True
    return n_words < settings.limits[MIN_WORDS]


@part
def _line_stays(found: int, number: int, settings: LineSettings, row: Row) -> bool:
    """Returns whether the phrases let a line stay; notes the first lines that decide on the document."""
    if row[3] == 0 and found & LOREM:
        row[3] = number
    if found & JAVASCRIPT and settings.switches[NO_JAVASCRIPT]:
        return False
    if row[4] == 0 and found & _CURLY:
        row[4] = number
    return not (found & POLICY and settings.switches[NO_POLICY])


@kernel(BYTES, LONGS, LONGS, LEXICON, INTS, INTS, INTS, BOOLS, SETTINGS, NEW_TEXTS, FLOATS)
def rewrite_texts(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    lexicon: LexiconArrays,
    first_chunk: Numbers,
    chunk_starts: Numbers,
    chunk_numbers: Numbers,
    english: npt.NDArray[np.uint8],
    settings: LineSettings,
    new: NewTexts,
    measures: Row,
) -> None:
    """Rewrites the texts that are English and copies the others; fills `C4_MEASURES` but sentences.

    Args:
        data: UTF-8 of the texts.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        lexicon: For the chunks' lengths.
        first_chunk: Chunks before each text, (n + 1,).
        chunk_starts: First byte of each chunk.
        chunk_numbers: Their numbers.
        english: 1 where the text is rewritten, (n,).
        settings: The line rules.
        new: Filled.
        measures: Filled, (n, len(C4_MEASURES)), NaN before.
    """
    end = 0
    for d in range(len(starts)):
        new.starts[d] = end
        if english[d]:
            end = _rewrite(
                data,
                starts[d],
                stops[d],
                lexicon,
                first_chunk,
                chunk_starts,
                chunk_numbers,
                d,
                settings,
                new,
                measures[d],
            )
        else:
            for i in range(starts[d], stops[d]):
                new.data[end] = data[i]
                end += 1
            new.stops[d] = end
