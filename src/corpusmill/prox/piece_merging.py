"""SentencePiece's merging of pairs, compiled: the ids of many texts in one call, some ten times as fast.

SentencePiece joins, again and again, the two neighbouring pieces whose union ranks first in the vocabulary, the
leftmost of equals. No piece of a Llama vocabulary holds a space behind another character, so a text falls into words
that merge by themselves, and a word is so short that looking at all its pairs beats a queue. The pairs that make a
piece stand in a hash table by both ids.

Source: google/sentencepiece `src/bpe_model.cc`. Importing this module imports numba.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from corpusmill.kernel_folder import keep_kernels

Function = TypeVar("Function", bound=Callable[..., Any])

MAX_WORD = 200
"""Characters of a word at most: looking at all pairs costs their square. A text with a longer one is not encoded."""
keep_kernels()  # before the first kernel is declared

_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_SPREAD = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2^64 over the golden ratio: neighbouring keys fall far apart
_HIGH = np.uint64(32)
_LAST = np.int32(0x7FFF_FFFF)  # the rank of what is no piece

_CODES = numba.types.Array(numba.uint32, 1, "C", readonly=True)
_LONGS, _INTS = numba.types.Array(numba.int64, 1, "C"), numba.types.Array(numba.int32, 1, "C")
_KEYS, _FLAGS = numba.types.Array(numba.uint64, 1, "C"), numba.types.Array(numba.boolean, 1, "C")


def _part(function: Function) -> Function:
    made: Function = numba.njit(function)
    return made


def _kernel(*signature: Any) -> Callable[[Function], Function]:
    def compile_it(function: Function) -> Function:
        made: Function = numba.njit(tuple(signature), cache=True, nogil=True)(function)
        return made

    return compile_it


@_part
def _key(left: int, right: int) -> Any:
    return (np.uint64(left) << _HIGH) | np.uint64(right)


@_kernel(_INTS, _INTS, _INTS, _KEYS, _INTS)
def enter_pairs(left_P: Any, right_P: Any, whole_P: Any, keys_S: Any, wholes_S: Any) -> None:
    """Fills the hash table of pairs.

    Args:
        left_P: Id of the first piece of each pair.
        right_P: Id of the second.
        whole_P: Id of both together.
        keys_S: Keys, all ones where a slot is free; S is a power of two, at least twice the pairs.
        wholes_S: Id of both together in each slot.
    """
    last = np.uint64(len(keys_S) - 1)
    for pair in range(len(left_P)):
        key = _key(left_P[pair], right_P[pair])
        slot = ((key * _SPREAD) >> _HIGH) & last
        while keys_S[slot] != _EMPTY:
            slot = (slot + np.uint64(1)) & last
        keys_S[slot] = key
        wholes_S[slot] = whole_P[pair]


@_part
def _whole(left: int, right: int, keys_S: Any, wholes_S: Any) -> Any:
    """Returns the id of two pieces together, -1 where they are none."""
    last = np.uint64(len(keys_S) - 1)
    key = _key(left, right)
    slot = ((key * _SPREAD) >> _HIGH) & last
    while keys_S[slot] != _EMPTY:
        if keys_S[slot] == key:
            return wholes_S[slot]
        slot = (slot + np.uint64(1)) & last
    return np.int32(-1)


@_part
def _word_end(codes_N: Any, start: int, stop: int, of_character: Any, begins_V: Any, space: int) -> Any:
    """Returns where the word that begins at a place ends."""
    before = of_character[codes_N[start]]
    end = start + 1
    while end < stop and before >= 0:
        this = of_character[codes_N[end]]
        if this < 0 or begins_V[this] or (this == space and before != space):
            break
        before = this
        end += 1
    return end


@_part
def _merge(pieces: Any, wholes: Any, n: int, keys_S: Any, wholes_S: Any, rank_V: Any) -> Any:
    """Joins the first n pieces in place as far as they go; returns how many are left."""
    for k in range(n - 1):
        wholes[k] = _whole(pieces[k], pieces[k + 1], keys_S, wholes_S)
    while n > 1:
        best, best_rank = -1, _LAST
        for k in range(n - 1):
            if wholes[k] >= 0 and rank_V[wholes[k]] < best_rank:
                best, best_rank = k, rank_V[wholes[k]]
        if best < 0:
            break
        pieces[best] = wholes[best]
        n -= 1
        for k in range(best + 1, n):
            pieces[k] = pieces[k + 1]
            wholes[k - 1] = wholes[k]
        if best > 0:
            wholes[best - 1] = _whole(pieces[best - 1], pieces[best], keys_S, wholes_S)
        if best < n - 1:
            wholes[best] = _whole(pieces[best], pieces[best + 1], keys_S, wholes_S)
    return n


@_part
def _put_bytes(code: Any, first_byte: int, ids: Any, n_ids: int) -> Any:
    """Writes the ids of a character's UTF-8 bytes; returns the number of ids."""
    if code < 0x80:
        ids[n_ids] = first_byte + code
        return n_ids + 1
    n_more = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    lead = 0xC0 if n_more == 1 else 0xE0 if n_more == 2 else 0xF0
    ids[n_ids] = first_byte + (lead | (code >> (6 * n_more)))
    for k in range(1, n_more + 1):
        ids[n_ids + k] = first_byte + (0x80 | ((code >> (6 * (n_more - k))) & 0x3F))
    return n_ids + 1 + n_more


@_kernel(_CODES, _LONGS, _INTS, _FLAGS, _INTS, _KEYS, _INTS, numba.int64, numba.int64, _INTS, _LONGS, _FLAGS)
def merge_texts(
    codes_N: Any,
    starts_T: Any,
    of_character: Any,
    begins_V: Any,
    rank_V: Any,
    keys_S: Any,
    wholes_S: Any,
    space: int,
    first_byte: int,
    ids: Any,
    ends_T: Any,
    refused_T: Any,
) -> None:
    """Encodes texts one behind the other.

    Args:
        codes_N: Code points of all texts, a space in front of each.
        starts_T: Where each text begins, and where the last one ends: one more than texts.
        of_character: Id of the piece that each code point is, -1 where it is none.
        begins_V: Whether a word begins at a piece of one character wherever it stands.
        rank_V: Rank of each piece; lower ones are joined first.
        keys_S: The hash table of pairs, filled by `enter_pairs`.
        wholes_S: Its values.
        space: Id of the space.
        first_byte: Id of the byte 0; the other bytes follow it.
        ids: Where ids go, with room for four times the code points.
        ends_T: Where the ids of each text end in ``ids``.
        refused_T: Set where a text has a longer word than `MAX_WORD`; it has no ids.
    """
    pieces, wholes = np.empty(MAX_WORD, np.int32), np.empty(MAX_WORD, np.int32)
    n_ids = 0
    for text in range(len(ends_T)):
        start, stop, before = starts_T[text], starts_T[text + 1], n_ids
        if stop - start < 2:  # SentencePiece puts no space in front of nothing
            start = stop
        while start < stop:
            end = _word_end(codes_N, start, stop, of_character, begins_V, space)
            n = end - start
            if n > MAX_WORD:
                refused_T[text] = True
                n_ids = before
                break
            first = of_character[codes_N[start]]
            if first < 0:
                n_ids = _put_bytes(np.int64(codes_N[start]), first_byte, ids, n_ids)
            else:
                for k in range(n):
                    pieces[k] = of_character[codes_N[start + k]]
                n = _merge(pieces, wholes, n, keys_S, wholes_S, rank_V)
                for k in range(n):
                    ids[n_ids + k] = pieces[k]
                n_ids += n
            start = end
        ends_T[text] = n_ids
