"""From band keys to clusters: the join of equal keys, the probe of older crawls' keys, and connected components.

Everything works on sorted keys and on numbers of documents whose order is the order of their ids, so that the lowest
number of a cluster is its lowest id. Bands, blocks and edges may come in any order: the clusters are the same.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.compiled.cluster_kernels import (
    find_roots,
    first_disorder,
    link_edges,
    link_runs,
    probe_sorted,
)
from corpusmill.dedup.minhash import KEY_TYPE
from corpusmill.errors import DataError

if TYPE_CHECKING:
    Keys: TypeAlias = npt.NDArray[np.void] | pa.Array[Any]
else:  # generic only in the stubs
    Keys: TypeAlias = npt.NDArray | pa.Array

Edges = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]


def join_bucket(keys: Keys, ids: Ids) -> Edges:
    """Returns the edges of a band: each member of a bucket with the bucket's lowest id, (edges, 2).

    A bucket of k documents has k - 1 edges, in the order of the keys. Needs 16 bytes an edge beside the arguments.

    Args:
        keys: One band's keys, sorted by (key, id): numpy of `KEY_TYPE` or Arrow binary(16), (n,).
        ids: Number of each key's document, (n,).

    Raises:
        DataError: Keys, or the ids of one key, are not in order.
    """
    return BandJoin().edges(keys, ids)


def join_blocks(blocks: Iterable[tuple[Keys, Ids]]) -> Iterator[Edges]:
    """Yields the edges of a band whose sorted keys come in blocks; a bucket may go on in the next block.

    The edges are those of `join_bucket` on all blocks together; one block is in memory.
    """
    join = BandJoin()
    for keys, ids in blocks:
        yield join.edges(keys, ids)


class BandJoin:
    """Joins the sorted keys of one band, block after block."""

    def __init__(self) -> None:
        self._last_key: bytes | None = None
        self._lowest = self._last_id = 0

    def edges(self, keys: Keys, ids: Ids) -> Edges:
        """Returns the edges of the next block; see `join_bucket`."""
        words = key_words(keys)
        if len(words) != len(ids):
            raise DataError(f"{len(words)} keys and {len(ids)} ids: expected as many ids as keys")
        if not len(words):
            return np.empty((0, 2), dtype=np.int64)
        first_key, last_key = words[0].tobytes(), words[-1].tobytes()
        check_order(words, first_key, self._last_key)
        goes_on = first_key == self._last_key
        rows = bucket_rows(words, goes_on)
        edges = np.empty_like(rows)
        edges[:, 0] = ids[rows[:, 0]]
        edges[:, 1] = np.where(rows[:, 1] < 0, self._lowest, ids[rows[:, 1]])
        self._check_ids(ids, rows[:, 0], goes_on)
        if len(rows) and rows[-1, 0] == len(words) - 1:
            self._lowest = int(edges[-1, 1])
        else:
            self._lowest = int(ids[-1])
        self._last_key, self._last_id = last_key, int(ids[-1])
        return edges

    def _check_ids(self, ids: Ids, members: Ids, goes_on: bool) -> None:
        """Raises where the ids of one key fall."""
        before = ids[np.maximum(members - 1, 0)]
        if goes_on:
            before[members == 0] = self._last_id
        if (fallen := np.flatnonzero(ids[members] <= before)).size:
            row = int(members[fallen[0]])
            raise DataError(
                f"row {row}: id {int(ids[row])} does not follow {int(before[fallen[0]])} in its bucket; "
                "sort by (key, id), each document once"
            )


def bucket_rows(words: _Words, first_goes_on: bool = False) -> Edges:
    """Returns (row, first row of its bucket) for all rows of sorted keys but the first of each bucket, (edges, 2).

    Args:
        words: Keys as `key_words` gives them, (n, 2).
        first_goes_on: The first bucket began in an earlier block; its rows get first row -1.
    """
    rows = np.empty((link_runs(words, first_goes_on, np.empty((0, 2), dtype=np.int64)), 2), dtype=np.int64)
    if len(rows):
        link_runs(words, first_goes_on, rows)
    return rows


def probe(new: Keys, old: Keys) -> Ids:
    """Returns for each new key the first place of an equal old key, -1 for none, (new,).

    Costs new x log(old / new) comparisons: what a new crawl weighs, not what the older ones do.

    Args:
        new: Sorted keys of one band of the new crawl, (new,).
        old: Sorted keys of the same band of an older crawl, (old,).

    Raises:
        DataError: The new keys are not in order. The old ones are not all looked at, so they are not checked.
    """
    new_words, old_words = key_words(new), key_words(old)
    check_order(new_words, None, None)
    found = np.empty(len(new_words), dtype=np.int64)
    probe_sorted(new_words, old_words, found)
    return found


def key_words(keys: Keys) -> _Words:
    """Returns keys as pairs of numbers in the machine's order, (n, 2), without a copy where they lie together.

    Raises:
        DataError: The keys have another type, or nulls.
    """
    if isinstance(keys, pa.Array):
        if keys.type != pa.binary(16) or keys.null_count:
            raise DataError(f"keys of type {keys.type} with {keys.null_count} nulls; expected binary(16), no nulls")
        data = keys.buffers()[1]
        if data is None or not len(keys):
            return np.empty((0, 2), dtype=np.uint64)
        start = 2 * keys.offset
        return np.frombuffer(memoryview(data), dtype=np.uint64)[start : start + 2 * len(keys)].reshape(-1, 2)
    if keys.dtype != KEY_TYPE or keys.ndim != 1:
        raise DataError(f"keys of type {keys.dtype}, shape {keys.shape}; expected {KEY_TYPE}, (n,)")
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)


def check_order(words: _Words, first: bytes | None, before: bytes | None) -> None:
    """Raises `DataError` where a key is less than the one before it.

    Args:
        words: Keys as `key_words` gives them, (n, 2).
        first: The first of them as bytes.
        before: The last key of the block before, None for none.
    """
    row = first_disorder(words)
    if row >= 0 or (first is not None and before is not None and first < before):
        raise DataError(f"row {max(row, 0)}: its key is less than the one before; sort a band's keys as bytes")


class Components:
    """Deterministic union-find: the lowest number of a component is its root, whatever the order of edges.

    Takes 8 bytes a document and one block of edges at a time.

    Args:
        n: Documents, numbered from 0.
    """

    def __init__(self, n: int) -> None:
        self._parents = np.arange(n, dtype=np.int64)

    def link(self, edges: Edges) -> None:
        """Joins the components of both ends of each edge, (edges, 2).

        Raises:
            DataError: An end is no number of a document; none of the edges is taken then.
        """
        block = np.ascontiguousarray(edges, dtype=np.int64).reshape(-1, 2)
        if not link_edges(self._parents, block):
            raise DataError(
                f"edges between {int(block.min())} and {int(block.max())}: expected numbers of documents "
                f"from 0 to {len(self._parents) - 1}"
            )

    def roots(self) -> Ids:
        """Returns the lowest number of each document's component, (n,)."""
        found = self._parents.copy()
        find_roots(found)
        return found


def connected_components(n: int, blocks: Iterable[Edges]) -> Ids:
    """Returns the root of each of n documents, (n,), from blocks of edges in any order; see `Components`."""
    components = Components(n)
    for edges in blocks:
        components.link(edges)
    return components.roots()
