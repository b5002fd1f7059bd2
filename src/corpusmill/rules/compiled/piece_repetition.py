"""Repeated pieces of a text (lines, paragraphs): how many stood before already, and their code points."""

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes, Words64, hash_bytes, same_bytes
from corpusmill.rules.compiled.kernel_cache import part, signed
from corpusmill.rules.compiled.utf8 import NEWLINE, n_points
from corpusmill.rules.compiled.word_repetition import table_mask

Numbers = npt.NDArray[np.int32]

_TOP = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@part
def split_at_newlines(data: Bytes, start: int, stop: int, run: int, piece_starts: Numbers, piece_stops: Numbers) -> int:
    """Cuts a text at runs of at least so many newlines and returns the number of pieces, at least one.

    Args:
        data: UTF-8.
        start: First byte.
        stop: Behind the last byte.
        run: Newlines that a cut needs; longer runs are one cut. 0 cuts at every single newline.
        piece_starts: Where pieces begin, filled.
        piece_stops: Where they end, filled.
    """
    n, i, piece = 0, start, start
    while i < stop:
        if data[i] != NEWLINE:
            i += 1
            continue
        behind = i + 1
        while run and behind < stop and data[behind] == NEWLINE:
            behind += 1
        if behind - i >= run:
            piece_starts[n], piece_stops[n] = piece, i
            n += 1
            piece = behind
        i = behind
    piece_starts[n], piece_stops[n] = piece, stop
    return n + 1


@part
def repeated_pieces(
    data: Bytes, starts: Numbers, stops: Numbers, n: int, table: Words64, epoch: int, seed: np.uint64
) -> tuple[int, int]:
    """Returns how many of n pieces stood before already, and their code points."""
    n_repeated = n_repeated_points = 0
    mask = table_mask(table, n)
    for k in range(n):
        start, length = starts[k], stops[k] - starts[k]
        h = hash_bytes(data, start, stops[k], seed)
        place = h & mask
        seen = False
        while table[place, 1] >> _TOP == np.uint64(epoch):
            if table[place, 0] == h:
                first = signed(table[place, 1] & _LOW)
                if stops[first] - starts[first] == length and same_bytes(data, starts[first], data, start, length):
                    seen = True
                    break
            place = (place + np.uint64(1)) & mask
        if seen:
            n_repeated += 1
            n_repeated_points += n_points(data, start, stops[k])
        else:
            table[place, 0], table[place, 1] = h, (np.uint64(epoch) << _TOP) | np.uint64(k)
    return n_repeated, n_repeated_points
