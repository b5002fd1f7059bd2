"""Kernels of the bucket join and of union-find.

Keys are the 16 bytes of each row as two numbers in the machine's order; compared as bytes, as Parquet sorts them.
"""

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.kernel_cache import kernel, part

Words = npt.NDArray[np.uint64]
Longs = npt.NDArray[np.int64]

_KEYS = numba.types.Array(numba.uint64, 2, "C", readonly=True)
_EDGES = numba.types.Array(numba.int64, 2, "C", readonly=True)
_ROWS = numba.types.Array(numba.int64, 2, "C")
_LONGS = numba.types.Array(numba.int64, 1, "C")

_EIGHT, _SIXTEEN, _THIRTY_TWO = np.uint64(8), np.uint64(16), np.uint64(32)
_BYTES, _PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)


@part
def _swapped(x: np.uint64) -> np.uint64:
    """Returns the number whose bytes stand in the other order."""
    x = ((x & _BYTES) << _EIGHT) | ((x >> _EIGHT) & _BYTES)
    x = ((x & _PAIRS) << _SIXTEEN) | ((x >> _SIXTEEN) & _PAIRS)
    return (x << _THIRTY_TWO) | (x >> _THIRTY_TWO)


@part
def _order(left: Words, i: int, right: Words, j: int) -> int:
    """Returns -1, 0 or 1 where row i of the left keys is less than, equal to, greater than row j of the right."""
    for k in range(2):
        if left[i, k] != right[j, k]:
            return -1 if _swapped(left[i, k]) < _swapped(right[j, k]) else 1
    return 0


@kernel(_KEYS)
def first_disorder(keys: Words) -> int:
    """Returns the first row whose key is less than the one before, -1 where all are in order."""
    for i in range(1, len(keys)):
        if _order(keys, i, keys, i - 1) < 0:
            return i
    return -1


@kernel(_KEYS, numba.boolean, _ROWS)
def link_runs(keys: Words, first_goes_on: bool, rows: Longs) -> int:
    """Writes (row, first row of its run) for every row but the first of each run of equal keys; returns how many.

    Args:
        keys: Sorted keys, (n, 2).
        first_goes_on: The first run began before these keys; its rows get first row -1.
        rows: Filled, (at least as many, 2); with no rows at all they are counted only.
    """
    found, first, write = 0, 0, len(rows) > 0
    if first_goes_on:
        first = -1
    for i in range(len(keys)):
        if i and (keys[i, 0] != keys[i - 1, 0] or keys[i, 1] != keys[i - 1, 1]):
            first = i
        if first == i:
            continue
        if write:
            rows[found, 0], rows[found, 1] = i, first
        found += 1
    return found


@part
def _first_not_less(old: Words, new: Words, row: int, low: int) -> int:
    """Returns the first place from low on whose old key is not less than the new one: doubling steps, then halving."""
    n, step, high = len(old), 1, low
    while high < n and _order(old, high, new, row) < 0:
        low = high + 1
        high += step
        step *= 2
    high = min(high, n)
    while low < high:
        middle = (low + high) >> 1
        if _order(old, middle, new, row) < 0:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(_KEYS, _KEYS, _LONGS)
def probe_sorted(new: Words, old: Words, found: Longs) -> None:
    """Writes for each new key the first place of an equal old one, -1 for none; both are sorted."""
    place = 0
    for i in range(len(new)):
        place = _first_not_less(old, new, i, place)
        found[i] = place if place < len(old) and _order(old, place, new, i) == 0 else -1


@part
def _root(parents: Longs, i: int) -> int:
    """Returns the root of a number and shortens the way to it."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@kernel(_LONGS, _EDGES)
def link_edges(parents: Longs, edges: Longs) -> bool:
    """Joins the sets of both ends of each edge under the lower root; returns False where an end is no number of a set.

    Nothing is joined in that case.
    """
    n = len(parents)
    for k in range(len(edges)):
        if min(edges[k, 0], edges[k, 1]) < 0 or max(edges[k, 0], edges[k, 1]) >= n:
            return False
    for k in range(len(edges)):
        a, b = _root(parents, edges[k, 0]), _root(parents, edges[k, 1])
        if a < b:
            parents[b] = a
        else:
            parents[a] = b
    return True


@kernel(_LONGS)
def find_roots(parents: Longs) -> None:
    """Replaces each parent by its root. Parents are never greater than their children, so that one pass suffices."""
    for i in range(len(parents)):
        parents[i] = parents[parents[i]]
