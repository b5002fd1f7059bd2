"""Exact Jaccard similarity of texts: shared shingles by all shingles, each counted once.

Shingles are those of `corpusmill.dedup.shingles`, five words by default, compared by their 64-bit hashes: this is the
quantity that MinHash estimates. Two texts without shingles are alike (1.0) where their simplified forms are equal.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.shingles import Hashes, Shingler
from corpusmill.dedup.simplification import simplify
from corpusmill.errors import DataError

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array

Pairs = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float64]

BLOCK_BYTES = 32_000_000
"""Text whose shingles are in memory at a time, about twice as many bytes; a pair of longer texts is a block alone."""


def jaccard(left: Hashes, right: Hashes) -> float:
    """Returns shared by all elements of two sets of shingles, each sorted and without repeats; 0.0 for empty sets."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    everything = len(left) + len(right) - shared
    return shared / everything if everything else 0.0


def similarity(left: str, right: str, shingler: Shingler) -> float:
    """Returns the similarity of two texts, from 0 to 1."""
    return float(similarities(pa.array([left, right], pa.large_string()), np.array([[0, 1]]), shingler)[0])


def similarities(texts: Strings, pairs: Pairs, shingler: Shingler, *, block_bytes: int = BLOCK_BYTES) -> Similarities:
    """Returns the similarity of each pair of texts, from 0 to 1, (pairs,).

    Each text is shingled once a block; pairs of one survivor come into the same block where they fit.

    Args:
        texts: string or large_string without nulls among the pairs.
        pairs: Numbers of both texts, (pairs, 2).
        shingler: Whose shingles to compare.
        block_bytes: Bytes of text whose shingles are in memory at a time.

    Raises:
        DataError: A pair names a text that is not there or is null.
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    found = np.empty(len(pairs))
    if not len(pairs):
        return found
    if pairs.min() < 0 or pairs.max() >= len(texts):
        raise DataError(f"pairs name texts {pairs.min()} to {pairs.max()}; expected 0 to {len(texts) - 1}")
    lengths: Any = pc.binary_length(texts)  # type: ignore[call-overload]  # takes both widths of strings
    sizes = lengths.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if (nulls := pairs[sizes[pairs] < 0]).size:
        raise DataError(f"text {int(nulls[0])} of a pair is null; expected texts that were kept")
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    for block in _blocks(pairs[order], sizes, block_bytes):
        rows = order[block]
        found[rows] = _block_similarities(texts, pairs[rows], shingler)
    return found


def _blocks(pairs: Pairs, sizes: npt.NDArray[np.int64], most: int) -> Iterator[slice]:
    """Yields consecutive pairs whose distinct texts have about so many bytes together."""
    first, inside, n_bytes = 0, set[int](), 0
    for row, (left, right) in enumerate(pairs.tolist()):
        new = {left, right} - inside
        n_new = int(sum(sizes[k] for k in new))
        if row > first and n_bytes + n_new > most:
            yield slice(first, row)
            first, inside, n_bytes = row, set(), 0
            new = {left, right}
            n_new = int(sum(sizes[k] for k in new))
        inside |= new
        n_bytes += n_new
    yield slice(first, len(pairs))


def _block_similarities(texts: Strings, pairs: Pairs, shingler: Shingler) -> Similarities:
    numbers, places = np.unique(pairs, return_inverse=True)
    block = texts.take(numbers)
    sets: list[Hashes] = []
    for group in shingler.groups(block):
        starts = [0, *group.ends[:-1].tolist()]
        sets += [np.unique(group.hashes[a:b]) for a, b in zip(starts, group.ends.tolist(), strict=True)]
    found = np.empty(len(pairs))
    for row, (left, right) in enumerate(places.reshape(-1, 2).tolist()):
        found[row] = jaccard(sets[left], sets[right])
        if not len(sets[left]) and not len(sets[right]):
            found[row] = simplify(block[left].as_py()) == simplify(block[right].as_py())
    return found
