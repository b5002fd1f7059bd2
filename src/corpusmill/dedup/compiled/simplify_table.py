"""What simplification makes of single characters, found by asking the definition."""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.dedup.simplification import DECIMAL_SEPARATORS, is_digit, simplify
from corpusmill.rules.punctuation import PUNCTUATION

N_LISTED = 0x20000
"""Code points from here on are not listed: texts with one go to the definition."""

SAME, CHANGED, SPACE, DIGIT, UNSURE = range(5)
"""Kinds of characters: stays, becomes other bytes or none, separates words, belongs to a number, needs its context."""
SEPARATOR = 8
"""Bit beside the kind: inside a number it belongs to it."""

_CAPITAL_SIGMA = "\u03a3"  # its small form depends on what follows


class SimplifyTable(NamedTuple):
    """Attributes of each listed code point.

    Attributes:
        kinds: Kind, and `SEPARATOR`, (N_LISTED,).
        starts: Where the bytes of a changed character begin, (N_LISTED,).
        lengths: How many they are, (N_LISTED,).
        changed: UTF-8 of all changed characters.
    """

    kinds: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.uint8]
    changed: npt.NDArray[np.uint8]


_BYTES, _INTS = numba.types.Array(numba.uint8, 1, "C"), numba.types.Array(numba.int32, 1, "C")
TABLE = numba.types.NamedTuple((_BYTES, _INTS, _BYTES, _BYTES), SimplifyTable)
"""Type of `SimplifyTable` in kernels."""

MOST_GROWTH = 3
"""A character has at most so many times its bytes when simplified: a Hangul syllable becomes three letters."""


@lru_cache(maxsize=1)
def make_table() -> SimplifyTable:
    """Returns the table for the running Python's Unicode version; takes a quarter of a second once a process."""
    kinds = np.zeros(N_LISTED, dtype=np.uint8)
    starts = np.zeros(N_LISTED, dtype=np.int32)
    lengths = np.zeros(N_LISTED, dtype=np.uint8)
    changed = bytearray()
    for point in range(N_LISTED):
        if 0xD800 <= point < 0xE000:
            continue  # no text holds them
        c = chr(point)
        kinds[point] = kind = _kind(c)
        if c in DECIMAL_SEPARATORS:
            kinds[point] |= SEPARATOR
        if kind == CHANGED:
            simple = simplify(c).encode()
            assert len(simple) <= MOST_GROWTH * len(c.encode()), f"U+{point:04X} grows too much"
            starts[point], lengths[point] = len(changed), len(simple)
            changed += simple
    return SimplifyTable(kinds, starts, lengths, np.frombuffer(bytes(changed), dtype=np.uint8).copy())


def _kind(c: str) -> int:
    if is_digit(c):  # before punctuation: the full-width 1 is in both
        return DIGIT
    if c in PUNCTUATION or c.isspace():
        return SPACE
    if c == _CAPITAL_SIGMA or any(map(_may_move, unicodedata.normalize("NFD", c.lower()))):
        return UNSURE
    return SAME if simplify(c) == c else CHANGED


def _may_move(c: str) -> bool:
    """Returns whether canonical order may put a character elsewhere and it is not removed as a nonspacing mark."""
    return unicodedata.combining(c) != 0 and unicodedata.category(c) != "Mn"
