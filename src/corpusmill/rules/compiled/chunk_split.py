"""Splits most chunks as spaCy's English tokenizer does, without spaCy.

spaCy cuts prefixes and suffixes off until neither is left or a special case remains, then splits what is left at
infixes, then lets special cases join neighbouring tokens. The kernels follow these steps for characters whose part is
certain (`character_classes`), with cores of two forms: letters, with single joiners or apostrophes between them, and
digits, with single separators between them. Wherever a special case could come in, they give up and spaCy is asked.
"""

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes, hash_bytes, hash_pair
from corpusmill.rules.compiled.character_classes import (
    ALPHABETIC,
    APOSTROPHE,
    BEFORE_STOP,
    CAPITAL,
    DIGIT,
    END_MARK,
    JOINER,
    LETTER,
    N_CLASSIFIED,
    PREFIX,
    PUNCTUATION_MARK,
    SUFFIX,
    SYMBOL,
    UNSURE,
)
from corpusmill.rules.compiled.kernel_cache import part
from corpusmill.rules.compiled.lexicon_arrays import (
    ALPHA,
    FLAGS,
    NAMED,
    NAMED_POINTS,
    OPEN_AFTER,
    OPEN_AFTER_MARK,
    STARTS,
    STARTS_AFTER_MARK,
    LexiconArrays,
    contains,
    intern_token,
    list_token,
)
from corpusmill.rules.compiled.utf8 import point_at, point_width

MAX_POINTS = 62
"""Longer chunks go to spaCy; token starts are bits of one number."""
N_SCRATCH = 2 * (MAX_POINTS + 2)

_STOP = 46
_MAYBE_STOP = 1 << 13
"""Class of the full stop here, whose part depends on what stands before it."""
_POSSESSIVE = 1 << 14
"""Class of the letters s and S here, which form a suffix with an apostrophe."""
_DIGIT_SEPARATOR = 1 << 15
"""Class of comma, full stop, slash and colon here, which stay inside numbers."""

Scratch = npt.NDArray[np.int32]


@part
def split_chunk(lexicon: LexiconArrays, data: Bytes, start: int, stop: int, chunk: int, scratch: Scratch) -> bool:
    """Gives a chunk its tokens and returns True, or returns False where spaCy must be asked.

    Args:
        lexicon: The lexicon, with room for the chunk's tokens.
        data: UTF-8 that holds the chunk.
        start: Its first byte.
        stop: Behind its last byte.
        chunk: Its number; it must be the last one.
        scratch: Room for `N_SCRATCH` numbers.
    """
    n = _read_classes(lexicon, data, start, stop, scratch)
    if n <= 0:
        return False
    offsets, classes = scratch[: MAX_POINTS + 2], scratch[MAX_POINTS + 2 :]
    cuts = _cut(lexicon, data, offsets, classes, n)
    if cuts == 0 or _meets_special_case(lexicon, data, offsets, cuts, n):
        return False
    _list_tokens(lexicon, data, offsets, classes, cuts, n, chunk)
    return True


@part
def _read_classes(lexicon: LexiconArrays, data: Bytes, start: int, stop: int, scratch: Scratch) -> int:
    """Fills offsets and classes of the chunk's code points; returns their number, or -1 where one is not certain."""
    i, n = start, 0
    while i < stop:
        if n == MAX_POINTS:
            return -1
        point = point_at(data, i)
        if point >= N_CLASSIFIED:
            return -1
        found = np.int32(lexicon.classes[point])
        if point == _STOP:
            found = np.int32((found & (ALPHABETIC | SYMBOL | PUNCTUATION_MARK | END_MARK)) | _MAYBE_STOP)
        elif point == 83 or point == 115:
            found = np.int32(found | _POSSESSIVE)
        if found & UNSURE:
            return -1
        if point == 44 or point == _STOP or point == 47 or point == 58:
            found = np.int32(found | _DIGIT_SEPARATOR)
        scratch[n] = i
        scratch[MAX_POINTS + 2 + n] = found
        i += point_width(data[i])
        n += 1
    scratch[n] = i
    return n


@part
def _is_special(lexicon: LexiconArrays, data: Bytes, start: int, stop: int) -> bool:
    return contains(lexicon.special_texts, hash_bytes(data, start, stop, lexicon.seeds[0]))


@part
def _cut(lexicon: LexiconArrays, data: Bytes, offsets: Scratch, classes: Scratch, n: int) -> np.uint64:
    """Returns the token starts as bits by place, or 0 where they are not certain."""
    low, high, cuts = 0, n, np.uint64(0)
    while low < high:
        if _is_special(lexicon, data, offsets[low], offsets[high]):
            return np.uint64(0)
        before = _prefix_length(classes, low, high)
        behind = _suffix_length(classes, low + before, high)
        if before < 0:
            return np.uint64(0)
        if before + behind == 0:
            break
        if before and low + before < high and _is_special(lexicon, data, offsets[low + before], offsets[high]):
            return np.uint64(0)
        if behind and low < high - behind and _is_special(lexicon, data, offsets[low], offsets[high - behind]):
            return np.uint64(0)
        cuts |= np.uint64(before) << np.uint64(low)
        low, high = low + before, high - behind
        cuts |= np.uint64(behind > 0) << np.uint64(high)
    return _cut_core(classes, low, high, cuts)


@part
def _prefix_length(classes: Scratch, low: int, high: int) -> int:
    """Returns the length of the prefix, 0 for none, -1 where it is not certain."""
    if classes[low] & PREFIX:
        return 1
    return -1 if classes[low] & _MAYBE_STOP and low + 1 < high and classes[low + 1] & _MAYBE_STOP else 0


@part
def _suffix_length(classes: Scratch, low: int, high: int) -> int:
    """Returns the length of the suffix of the characters from low to high."""
    if low >= high:
        return 0
    last = classes[high - 1]
    if last & SUFFIX:
        return 1
    if last & _POSSESSIVE:
        return 2 if high - low >= 2 and classes[high - 2] & APOSTROPHE else 0
    return _stops_cut_off(classes, low, high) if last & _MAYBE_STOP else 0


@part
def _stops_cut_off(classes: Scratch, low: int, high: int) -> int:
    """Returns how many of the full stops at the end are a suffix: all of two and more, one by what stands before."""
    n = 1
    while n < high - low and classes[high - 1 - n] & _MAYBE_STOP:
        n += 1
    if n > 1:
        return n
    if high - low >= 2 and classes[high - 2] & BEFORE_STOP:
        return 1
    return 1 if high - low >= 3 and classes[high - 2] & classes[high - 3] & CAPITAL else 0


@part
def _cut_core(classes: Scratch, low: int, high: int, cuts: np.uint64) -> np.uint64:
    """Returns the token starts with those of the core, 0 where it has neither of the known forms."""
    if low == high:
        return cuts
    cuts |= np.uint64(1) << np.uint64(low)
    kind = classes[low] & (LETTER | DIGIT)
    if kind == 0 or classes[high - 1] & kind == 0:
        return np.uint64(0)
    for i in range(low + 1, high - 1):
        if classes[i] & kind:
            continue
        if classes[i - 1] & kind == 0 or classes[i + 1] & kind == 0:
            return np.uint64(0)
        if kind == LETTER and classes[i] & JOINER:
            cuts |= np.uint64(3) << np.uint64(i)
        elif not ((kind == LETTER and classes[i] & APOSTROPHE) or (kind == DIGIT and classes[i] & _DIGIT_SEPARATOR)):
            return np.uint64(0)
    return cuts


@part
def _meets_special_case(lexicon: LexiconArrays, data: Bytes, offsets: Scratch, cuts: np.uint64, n: int) -> bool:
    """Returns whether a token is a special case, or two neighbours begin one."""
    start, before = 0, np.uint64(0)
    for stop in range(1, n + 1):
        if stop < n and not (cuts >> np.uint64(stop)) & np.uint64(1):
            continue
        h = hash_bytes(data, offsets[start], offsets[stop], lexicon.seeds[0])
        if contains(lexicon.special_texts, h):
            return True
        if start and contains(lexicon.special_pairs, hash_pair(before, h)):
            return True
        start, before = stop, h
    return False


@part
def _list_tokens(
    lexicon: LexiconArrays, data: Bytes, offsets: Scratch, classes: Scratch, cuts: np.uint64, n: int, chunk: int
) -> None:
    """Adds the chunk's tokens and what the rules ask of them."""
    row = lexicon.chunks[chunk]
    closed, opened = False, True
    start = 0
    for stop in range(1, n + 1):
        if stop < n and not (cuts >> np.uint64(stop)) & np.uint64(1):
            continue
        common, any_of, symbols = 0xFFFF, 0, True
        for i in range(start, stop):
            common &= classes[i]
            any_of |= classes[i]
            symbols &= (classes[i] & SYMBOL) != 0
        if not symbols:
            row[NAMED] += 1
            row[NAMED_POINTS] += stop - start
        row[ALPHA] += (any_of & ALPHABETIC) != 0
        if stop - start == 1 and common & END_MARK:
            closed = opened = True
        elif not common & PUNCTUATION_MARK:
            row[STARTS] += closed
            row[STARTS_AFTER_MARK] += opened
            closed = opened = False
        list_token(lexicon, chunk, intern_token(lexicon, data, offsets[start], offsets[stop]))
        start = stop
    row[FLAGS] = OPEN_AFTER * closed + OPEN_AFTER_MARK * opened
