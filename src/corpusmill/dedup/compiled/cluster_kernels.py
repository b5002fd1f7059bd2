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
_IDS = numba.types.Array(numba.int64, 1, "C", readonly=True)
_ROWS = numba.types.Array(numba.int64, 2, "C")
_LONGS = numba.types.Array(numba.int64, 1, "C")

_EIGHT, _SIXTEEN, _THIRTY_TWO = np.uint64(8), np.uint64(16), np.uint64(32)
_FEW = 24
"""Rows that are ordered by insertion."""
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


@part
def _before(keys: Words, ids: Longs, i: int, j: int) -> bool:
    """Returns whether row i comes before row j by (key, id)."""
    order = _order(keys, i, keys, j)
    return order < 0 or (order == 0 and ids[i] < ids[j])


@part
def _insert_rows(keys: Words, ids: Longs, rows: Longs, first: int, stop: int) -> None:
    """Orders few rows by insertion."""
    for k in range(first + 1, stop):
        row, place = rows[k], k
        while place > first and _before(keys, ids, row, rows[place - 1]):
            rows[place] = rows[place - 1]
            place -= 1
        rows[place] = row


@part
def _sink(keys: Words, ids: Longs, rows: Longs, first: int, n: int, k: int) -> None:
    """Restores the heap of n rows from first on below its k-th."""
    row = rows[first + k]
    while 2 * k + 1 < n:
        child = 2 * k + 1
        if child + 1 < n and _before(keys, ids, rows[first + child], rows[first + child + 1]):
            child += 1
        if not _before(keys, ids, row, rows[first + child]):
            break
        rows[first + k] = rows[first + child]
        k = child
    rows[first + k] = row


@part
def _heap_rows(keys: Words, ids: Longs, rows: Longs, first: int, stop: int) -> None:
    """Orders many rows in time k log k, whatever they hold."""
    n = stop - first
    for k in range(n // 2 - 1, -1, -1):
        _sink(keys, ids, rows, first, n, k)
    for last in range(n - 1, 0, -1):
        rows[first], rows[first + last] = rows[first + last], rows[first]
        _sink(keys, ids, rows, first, last, 0)


@part
def _in_order(keys: Words, ids: Longs, rows: Longs, first: int, stop: int) -> bool:
    for k in range(first + 1, stop):  # noqa: SIM110 - numba compiles no generator expression
        if _before(keys, ids, rows[k], rows[k - 1]):
            return False
    return True


@kernel(_KEYS, _IDS, numba.int64, _LONGS, _LONGS)
def order_rows(keys: Words, ids: Longs, shift: int, ends: Longs, rows: Longs) -> None:
    """Writes the rows in the order of (key, id): digests fall evenly into ranges of their first bits.

    Args:
        keys: Keys in any order, (n, 2).
        ids: Second key of the order, (n,).
        shift: 64 less the bits that tell the ranges apart.
        ends: Zeros, (ranges + 1,).
        rows: Filled, (n,).
    """
    by = np.uint64(shift)
    for i in range(len(keys)):
        ends[np.int64(_swapped(keys[i, 0]) >> by) + 1] += 1
    for k in range(1, len(ends)):
        ends[k] += ends[k - 1]
    for i in range(len(keys)):
        place = np.int64(_swapped(keys[i, 0]) >> by)
        rows[ends[place]] = i
        ends[place] += 1
    first = 0
    for k in range(len(ends) - 1):
        stop = ends[k]
        if stop - first <= _FEW:
            _insert_rows(keys, ids, rows, first, stop)
        elif not _in_order(keys, ids, rows, first, stop):
            _heap_rows(keys, ids, rows, first, stop)
        first = stop


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
