"""FineWeb's own measures; see `corpusmill.rules.fineweb`."""

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.document_scan import LONGS
from corpusmill.rules.compiled.gopher_kernels import BOOLS, FLOATS, Row
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part
from corpusmill.rules.compiled.lexicon_arrays import INTS, LEXICON, LexiconArrays
from corpusmill.rules.compiled.piece_repetition import repeated_pieces, split_at_newlines
from corpusmill.rules.compiled.utf8 import in_sorted, last_point_start, n_points, point_at, strip_left
from corpusmill.rules.compiled.workspace import WORKSPACE, Workspace, next_epoch
from corpusmill.rules.fineweb import SHORT_LINE_CHARS

Numbers = npt.NDArray[np.int32]

FINEWEB_MEASURES = (
    "fineweb_n_lines",
    "fineweb_line_punct_ratio",
    "fineweb_short_line_ratio",
    "fineweb_char_dup_ratio",
    "fineweb_list_ratio",
)
"""Columns that `measure_fineweb` fills; NaN stands for null."""


@part
def _drop_blank(data: Bytes, n: int, starts: Numbers, stops: Numbers) -> int:
    """Moves lines that are not blank to the front and returns how many there are."""
    kept = 0
    for k in range(n):
        if strip_left(data, starts[k], stops[k]) < stops[k]:
            starts[kept], stops[kept] = starts[k], stops[k]
            kept += 1
    return kept


@part
def _line_shares(data: Bytes, starts: Numbers, stops: Numbers, n: int, terminal: Numbers) -> tuple[float, float]:
    """Returns the shares of lines that end in a terminal mark and that are short."""
    n_ended = n_short = 0
    for k in range(n):
        last = point_at(data, last_point_start(data, starts[k], stops[k]))
        n_ended += in_sorted(terminal, last)
        n_short += n_points(data, starts[k], stops[k]) <= SHORT_LINE_CHARS
    return n_ended / n, n_short / n


@kernel(BYTES, LONGS, LONGS, INTS, BOOLS, LEXICON, INTS, WORKSPACE, FLOATS)
def measure_fineweb(
    data: Bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    n_words: Numbers,
    english: npt.NDArray[np.uint8],
    lexicon: LexiconArrays,
    terminal: Numbers,
    workspace: Workspace,
    measures: Row,
) -> None:
    """Fills `FINEWEB_MEASURES` of documents; newlines per word only where ``english`` is set.

    Args:
        data: UTF-8 of the texts.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        n_words: Words of each text, (n,).
        english: 1 where the measure on words is wanted, (n,).
        lexicon: For its seed.
        terminal: Sorted code points that end a line well.
        workspace: Room for the longest text.
        measures: Filled, (n, len(FINEWEB_MEASURES)), NaN before.
    """
    for d in range(len(starts)):
        line_starts, line_stops = workspace.piece_starts, workspace.piece_stops
        n_newlines = split_at_newlines(data, starts[d], stops[d], 0, line_starts, line_stops) - 1
        n = _drop_blank(data, n_newlines + 1, line_starts, line_stops)
        row = measures[d]
        row[0] = n
        if n:
            row[1], row[2] = _line_shares(data, line_starts, line_stops, n, terminal)
            seed, epoch = lexicon.seeds[0], next_epoch(workspace)
            _, n_repeated = repeated_pieces(data, line_starts, line_stops, n, workspace.table, epoch, seed)
            row[3] = n_repeated / (n_points(data, starts[d], stops[d]) - n_newlines)
        if english[d] and n_words[d]:
            row[4] = n_newlines / n_words[d]
