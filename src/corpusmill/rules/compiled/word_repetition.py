"""Repeated n-grams of words; see `corpusmill.rules.gopher_repetition` for what is counted.

Hash tables keep the place where an n-gram was first seen and compare the n-grams themselves on a hit. Their entries
carry the number of the count they belong to (an epoch), so that tables need no clearing.
"""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import PRIME, Words64, add, fold, multiply, power
from corpusmill.rules.compiled.kernel_cache import part, signed
from corpusmill.rules.compiled.lexicon_arrays import TOKEN_LENGTH, TOKEN_START, LexiconArrays

Numbers = npt.NDArray[np.int32]

TABLE = numba.types.Array(numba.uint64, 2, "C")
"""Type of a table: hash, then epoch and place, (2^k, 2)."""

_TOP = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_OTHER_MIX = np.uint64(0xE7037ED1A0B428DB)


@part
def table_mask(table: Words64, n: int) -> np.uint64:
    """Returns the mask of the part of a table that holds n entries at most half full."""
    size = 64
    while size < 2 * n and size < len(table):
        size *= 2
    return np.uint64(size - 1)


@part
def top_n_gram_points(
    words: Numbers, ends: Numbers, n: int, table: Words64, hits: Numbers, epoch: int, seed: np.uint64
) -> int:
    """Returns the code points covered by the most frequent n-gram joined by spaces, -1 for a text without n-grams.

    Args:
        words: Token numbers of the text.
        ends: Code points before each word and after the last one, (words + 1,).
        n: Words in an n-gram, 2 to 4.
        table: Where places are kept.
        hits: Counts beside it.
        epoch: Number of this count.
        seed: Secret seed.
    """
    best = best_place = -1
    mask = table_mask(table, len(words))
    for i in range(len(words) - n + 1):
        h = fold(seed ^ np.uint64(words[i]), _pair(words[i + 1], words[i + n - 2]))
        h = fold(h ^ np.uint64(words[i + n - 1]), _OTHER_MIX)
        place = h & mask
        while table[place, 1] >> _TOP == np.uint64(epoch):
            if table[place, 0] == h and _same_words(words, signed(table[place, 1] & _LOW), i, n):
                break
            place = (place + np.uint64(1)) & mask
        if table[place, 1] >> _TOP != np.uint64(epoch):
            table[place, 0], table[place, 1] = h, (np.uint64(epoch) << _TOP) | np.uint64(i)
            hits[place] = 0
        hits[place] += 1
        first = signed(table[place, 1] & _LOW)
        if hits[place] > best or (hits[place] == best and first < best_place):
            best, best_place = hits[place], first
    if best < 0:
        return -1
    return (ends[best_place + n] - ends[best_place] + n - 1) * best


@part
def _pair(a: int, b: int) -> np.uint64:
    return (np.uint64(a) << _TOP) | np.uint64(b)


@part
def _same_words(words: Numbers, first: int, second: int, n: int) -> bool:
    for k in range(n):  # noqa: SIM110 - numba compiles no generator expression
        if words[first + k] != words[second + k]:
            return False
    return True


@part
def repeated_points(
    lexicon: LexiconArrays,
    words: Numbers,
    ends: Numbers,
    prefixes: Words64,
    byte_ends: Numbers,
    n: int,
    table: Words64,
    epoch: int,
) -> int:
    """Returns the code points of n-grams seen before, compared as concatenated text; a hit is skipped over.

    Args:
        lexicon: For the words' bytes.
        words: Token numbers.
        ends: Code points before each word and after the last one.
        prefixes: Polynomial hashes of what stands before each word and after the last one.
        byte_ends: Bytes before each word and after the last one.
        n: Words in an n-gram.
        table: Where places are kept.
        epoch: Number of this count.
    """
    total = i = 0
    powers = lexicon.powers
    mask = table_mask(table, len(words))
    while i + n <= len(words):
        length = byte_ends[i + n] - byte_ends[i]
        h = add(prefixes[i + n], PRIME - multiply(prefixes[i], power(powers, length)))
        place = (h * _MIX >> np.uint64(20)) & mask
        seen = False
        while table[place, 1] >> _TOP == np.uint64(epoch):
            if table[place, 0] == h:
                first = signed(table[place, 1] & _LOW)
                if byte_ends[first + n] - byte_ends[first] == length and (
                    _same_words(words, first, i, n) or _same_text(lexicon, words, first, i, length)
                ):
                    seen = True
                    break
            place = (place + np.uint64(1)) & mask
        if seen:
            total += ends[i + n] - ends[i]
            i += n
        else:
            table[place, 0], table[place, 1] = h, (np.uint64(epoch) << _TOP) | np.uint64(i)
            i += 1
    return total


@part
def _same_text(lexicon: LexiconArrays, words: Numbers, first: int, second: int, length: int) -> bool:
    """Returns whether the concatenated words from two places on agree for so many bytes."""
    i = j = 0
    for _ in range(length):
        while i == lexicon.tokens[words[first]][TOKEN_LENGTH]:
            first, i = first + 1, 0
        while j == lexicon.tokens[words[second]][TOKEN_LENGTH]:
            second, j = second + 1, 0
        left = lexicon.token_bytes[lexicon.tokens[words[first]][TOKEN_START] + i]
        if left != lexicon.token_bytes[lexicon.tokens[words[second]][TOKEN_START] + j]:
            return False
        i, j = i + 1, j + 1
    return True
