"""Kernels from bytes of texts to shingles and signatures."""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.dedup.compiled.simplify_table import (
    CHANGED,
    DIGIT,
    N_LISTED,
    SAME,
    SEPARATOR,
    SPACE,
    TABLE,
    UNSURE,
    SimplifyTable,
)
from corpusmill.dedup.xxh64 import PRIME_1, PRIME_2, PRIME_3, PRIME_4, PRIME_5
from corpusmill.rules.compiled.byte_hashing import Bytes, hash_bytes
from corpusmill.rules.compiled.chunk_split import MAX_POINTS
from corpusmill.rules.compiled.kernel_cache import BYTES, kernel, part
from corpusmill.rules.compiled.lexicon_arrays import (
    CHUNK_TOKENS,
    FIRST_TOKEN,
    FLAGS,
    INTS,
    LEXICON,
    TOKEN_LENGTH,
    TOKEN_START,
    UNUSABLE,
    LexiconArrays,
    contains,
)
from corpusmill.rules.compiled.utf8 import point_at, point_width

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Words64 = npt.NDArray[np.uint64]

_LONGS, _OUT = numba.types.Array(numba.int64, 1, "C"), numba.types.Array(numba.uint8, 1, "C")
_HASHES = numba.types.Array(numba.uint64, 1, "C")
_FUNCTIONS = numba.types.Array(numba.uint64, 1, "C", readonly=True)
_SIGNATURES = numba.types.Array(numba.uint64, 2, "C")

_BLANK, _ZERO, _FIRST_LETTER, _LAST_LETTER = 32, 48, 97, 122


# Kernels take the table's arrays out of it once, because to pass it on counts references to all of them.
Kinds = npt.NDArray[np.uint8]


@part
def _kind(data: Bytes, i: int, kinds: Kinds) -> int:
    """Returns kind and `SEPARATOR` bit of the character that begins at i."""
    c = data[i]
    if c < 0x80:
        return kinds[c]
    point = point_at(data, i)
    return kinds[point] if point < N_LISTED else UNSURE


@part
def _digits_stop(data: Bytes, i: int, stop: int, kinds: Kinds) -> int:
    """Returns where the digits that begin at i end; i where there is none."""
    while i < stop and _kind(data, i, kinds) == DIGIT:
        i += point_width(data[i])
    return i


@part
def _number_stop(data: Bytes, i: int, stop: int, kinds: Kinds) -> int:
    """Returns where the number that begins at i ends: digits, and once a separator with more digits."""
    i = _digits_stop(data, i, stop, kinds)
    if i < stop and _kind(data, i, kinds) & SEPARATOR:
        behind = i + point_width(data[i])
        end = _digits_stop(data, behind, stop, kinds)
        if end > behind:
            return end
    return i


@part
def _copy(source: Bytes, start: int, n: int, out: Bytes, at: int) -> int:
    """Copies n bytes and returns where they end."""
    for k in range(n):
        out[at + k] = source[start + k]
    return at + n


@part
def _simplify(
    data: Bytes, i: int, stop: int, kinds: Kinds, starts: Ints, lengths: Kinds, changed: Bytes, out: Bytes, at: int
) -> int:
    """Writes the simplified text and returns where it ends, -1 where the definition must be asked."""
    begin, apart = at, False
    while i < stop:
        kind = _kind(data, i, kinds) & (SEPARATOR - 1)
        width = point_width(data[i])
        if kind == UNSURE:
            return -1
        length, place = width, i
        if kind == CHANGED:
            point = point_at(data, i)
            length, place = lengths[point], starts[point]
        if kind == SPACE or length == 0:
            apart = apart or kind == SPACE
            i += width
            continue
        if apart and at > begin:
            out[at] = _BLANK
            at += 1
        apart = False
        if kind == SAME:
            at = _copy(data, i, length, out, at)
        elif kind == CHANGED:
            at = _copy(changed, place, length, out, at)
        else:
            out[at] = _ZERO
            at += 1
            width = _number_stop(data, i, stop, kinds) - i
        i += width
    return at


@kernel(BYTES, _LONGS, TABLE, _OUT, _LONGS, _LONGS)
def simplify_texts(
    data: Bytes, bounds: Longs, table: SimplifyTable, out: Bytes, out_starts: Longs, out_stops: Longs
) -> int:
    """Writes simplified texts one behind the other and returns where the last one ends.

    Args:
        data: UTF-8 of the texts.
        bounds: First byte of each text and end of the last, (n + 1,).
        table: What becomes of each character.
        out: Room for the result, `MOST_GROWTH` bytes a byte.
        out_starts: First byte of each simplified text, filled.
        out_stops: Behind the last byte, filled; -1 where the definition must simplify the text.
    """
    at = 0
    for k in range(len(bounds) - 1):
        out_starts[k] = at
        out_stops[k] = _simplify(
            data, bounds[k], bounds[k + 1], table.kinds, table.starts, table.lengths, table.changed, out, at
        )
        if out_stops[k] >= 0:
            at = out_stops[k]
    return at


@part
def _chunk_stop(simple: Bytes, i: int, stop: int) -> int:
    """Returns where the chunk of a simplified text that begins at i ends: before the next space."""
    while i < stop and simple[i] != _BLANK:
        i += 1
    return i


@part
def _is_plain(simple: Bytes, start: int, stop: int, special_texts: Words64, seed: np.uint64) -> bool:
    """Returns whether a chunk is one word for certain: letters from a to z, or one number, and no special case."""
    if stop - start > MAX_POINTS:
        return False
    if simple[start] != _ZERO or stop - start > 1:
        for i in range(start, stop):
            if simple[i] < _FIRST_LETTER or simple[i] > _LAST_LETTER:
                return False
    return not contains(special_texts, hash_bytes(simple, start, stop, seed))


@kernel(BYTES, _LONGS, _LONGS, _HASHES, numba.uint64, _OUT, _LONGS, _OUT, _LONGS, _LONGS)
def set_odd_apart(
    simple: Bytes,
    starts: Longs,
    stops: Longs,
    special_texts: Words64,
    seed: np.uint64,
    plain: Kinds,
    n_plain: Longs,
    odd: Bytes,
    odd_starts: Longs,
    odd_stops: Longs,
) -> None:
    """Writes the chunks that need a tokenizer, so that only they are looked up in the lexicon.

    Args:
        simple: The simplified texts, chunks of a text separated by one space.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        special_texts: Hash table of the tokenizer's special cases.
        seed: Seed of its hashes.
        plain: Whether each chunk is one word for certain, filled.
        n_plain: How many of each text are, filled, (n,).
        odd: The other chunks, each followed by a space, filled.
        odd_starts: First byte of each text's other chunks, filled, (n,).
        odd_stops: Behind the last byte of them, filled, (n,).
    """
    k = at = 0
    for text in range(len(starts)):
        odd_starts[text], n_plain[text] = at, 0
        i, stop = starts[text], stops[text]
        while i < stop:
            end = _chunk_stop(simple, i, stop)
            plain[k] = _is_plain(simple, i, end, special_texts, seed)
            if plain[k]:
                n_plain[text] += 1
            else:
                at = _copy(simple, i, end - i, odd, at)
                odd[at] = _BLANK
                at += 1
            k += 1
            i = end + 1
        odd_stops[text] = at


@kernel(LEXICON, INTS, INTS, _LONGS)
def count_words(lexicon: LexiconArrays, first_chunk: Ints, chunk_numbers: Ints, n_words: Longs) -> None:
    """Adds the words of each text's other chunks to its plain ones, (n,); -1 where spaCy refused one of them."""
    chunks = lexicon.chunks
    for k in range(len(n_words)):
        for number in chunk_numbers[first_chunk[k] : first_chunk[k + 1]]:
            if chunks[number, FLAGS] & UNUSABLE:
                n_words[k] = -1
                break
            n_words[k] += chunks[number, CHUNK_TOKENS]


@kernel(BYTES, _LONGS, _LONGS, _OUT, LEXICON, INTS, _OUT, _LONGS)
def join_words(
    simple: Bytes,
    starts: Longs,
    stops: Longs,
    plain: Kinds,
    lexicon: LexiconArrays,
    chunk_numbers: Ints,
    out: Bytes,
    ends: Longs,
) -> None:
    """Writes the words of all texts, each followed by a space.

    Args:
        simple: The simplified texts.
        starts: First byte of each text, (n,).
        stops: Behind the last byte of each text, (n,).
        plain: Whether each chunk is one word.
        lexicon: The lexicon.
        chunk_numbers: Number of each other chunk in the lexicon.
        out: Room for the words: twice the bytes of the simplified texts.
        ends: Where each word ends, before its space, filled.
    """
    chunks, listed, tokens, token_bytes = lexicon.chunks, lexicon.listed, lexicon.tokens, lexicon.token_bytes
    at = word = k = odd = 0
    for text in range(len(starts)):
        i, stop = starts[text], stops[text]
        while i < stop:
            end = _chunk_stop(simple, i, stop)
            if plain[k]:
                at = _copy(simple, i, end - i, out, at)
                ends[word], out[at] = at, _BLANK
                word, at = word + 1, at + 1
            else:
                first = chunks[chunk_numbers[odd], FIRST_TOKEN]
                for token in listed[first : first + chunks[chunk_numbers[odd], CHUNK_TOKENS]]:
                    at = _copy(token_bytes, tokens[token, TOKEN_START], tokens[token, TOKEN_LENGTH], out, at)
                    ends[word], out[at] = at, _BLANK
                    word, at = word + 1, at + 1
                odd += 1
            k += 1
            i = end + 1


_P1, _P2, _P3 = np.uint64(PRIME_1), np.uint64(PRIME_2), np.uint64(PRIME_3)
_P4, _P5 = np.uint64(PRIME_4), np.uint64(PRIME_5)
_FIRST_LANE, _LAST_LANE = np.uint64((PRIME_1 + PRIME_2) % 2**64), np.uint64(-PRIME_1 % 2**64)


@part
def _rotate(value: np.uint64, by: int) -> np.uint64:
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


@part
def _four(data: Bytes, i: int) -> np.uint64:
    return (
        np.uint64(data[i])
        | np.uint64(data[i + 1]) << np.uint64(8)
        | np.uint64(data[i + 2]) << np.uint64(16)
        | np.uint64(data[i + 3]) << np.uint64(24)
    )


@part
def _eight(data: Bytes, i: int) -> np.uint64:
    return _four(data, i) | _four(data, i + 4) << np.uint64(32)


@part
def _round(lane: np.uint64, value: np.uint64) -> np.uint64:
    return _rotate(lane + value * _P2, 31) * _P1


@part
def _long_start(data: Bytes, start: int, stop: int) -> np.uint64:
    """Returns the hash of the whole stripes of 32 bytes; there is at least one."""
    a, b, c, d = _FIRST_LANE, _P2, np.uint64(0), _LAST_LANE
    for i in range(start, stop - 31, 32):
        a, b = _round(a, _eight(data, i)), _round(b, _eight(data, i + 8))
        c, d = _round(c, _eight(data, i + 16)), _round(d, _eight(data, i + 24))
    h = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
    for lane in (a, b, c, d):
        h = (h ^ _round(np.uint64(0), lane)) * _P1 + _P4
    return h


@part
def xxh64(data: Bytes, start: int, stop: int) -> np.uint64:
    """Returns the XXH64 of ``data[start:stop]``; see `corpusmill.dedup.xxh64`."""
    n = stop - start
    h = _long_start(data, start, stop) if n >= 32 else _P5
    h += np.uint64(n)
    i = start + (n & ~31)
    while i + 8 <= stop:
        h = _rotate(h ^ _round(np.uint64(0), _eight(data, i)), 27) * _P1 + _P4
        i += 8
    if i + 4 <= stop:
        h = _rotate(h ^ (_four(data, i) * _P1), 23) * _P2 + _P3
        i += 4
    while i < stop:
        h = _rotate(h ^ (np.uint64(data[i]) * _P5), 11) * _P1
        i += 1
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


@kernel(BYTES, _LONGS, _HASHES)
def hash_texts(data: Bytes, ends: Longs, hashes: Words64) -> None:
    """Writes the XXH64 of texts that follow each other in ``data``, (n,); for tests of the hash alone."""
    start = 0
    for k in range(len(ends)):
        hashes[k] = xxh64(data, start, ends[k])
        start = ends[k]


@kernel(BYTES, _LONGS, _LONGS, numba.int64, _HASHES, _LONGS)
def hash_runs(words: Bytes, ends: Longs, n_words: Longs, ngram: int, hashes: Words64, stops: Longs) -> None:
    """Writes the shingles of all texts.

    Args:
        words: Their words, each followed by one more byte; between the words of a text it is a space.
        ends: Where each word ends.
        n_words: Words of each text, (n,).
        ngram: Words of a shingle.
        hashes: Room for the shingles, filled.
        stops: Where the shingles of each text end, filled, (n,).
    """
    first = found = 0
    for text in range(len(n_words)):
        behind = first + n_words[text]
        for last in range(first + ngram - 1, behind):
            begin = last - ngram + 1
            start = ends[begin - 1] + 1 if begin else 0
            hashes[found] = xxh64(words, start, ends[last])
            found += 1
        first = behind
        stops[text] = found


@kernel(_HASHES, _LONGS, _FUNCTIONS, _FUNCTIONS, _SIGNATURES)
def sign(hashes: Words64, stops: Longs, factors: Words64, summands: Words64, signatures: Words64) -> None:
    """Lowers signatures to the least values of the texts' shingles; see `corpusmill.dedup.minhash`.

    Args:
        hashes: Shingles, text after text.
        stops: Where the shingles of each text end, (n,).
        factors: Of the random functions, (functions,).
        summands: Of the random functions, (functions,).
        signatures: All bits set, (n, functions).
    """
    prime, shift = np.uint64((1 << 61) - 1), np.uint64(61)
    start, n = 0, len(factors)
    for text in range(len(stops)):
        least = signatures[text]
        for k in range(start, stops[text]):
            h = hashes[k]
            for j in range(n):
                value = h * factors[j] + summands[j]
                value = (value & prime) + (value >> shift)
                value = value - prime if value >= prime else value
                least[j] = min(least[j], value)
        start = stops[text]
