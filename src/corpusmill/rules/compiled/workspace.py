"""Arrays that kernels use while they work on one document."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Words64
from corpusmill.rules.compiled.kernel_cache import part

Numbers = npt.NDArray[np.int32]


class Workspace(NamedTuple):
    """Room for one document at a time.

    Attributes:
        epoch: Number of the last count in ``table``, (1,).
        table: Hash table of places: hash, then epoch and place, (2^k, 2).
        hits: Counts beside it, (2^k,).
        words: Token numbers, (words,).
        ends: Code points before each word and after the last one, (words + 1,).
        byte_ends: The same in bytes.
        prefixes: Polynomial hashes of what stands before each word and after the last one, (words + 1,).
        piece_starts: First byte of each line or paragraph.
        piece_stops: Behind its last byte.
    """

    epoch: npt.NDArray[np.int64]
    table: Words64
    hits: Numbers
    words: Numbers
    ends: Numbers
    byte_ends: Numbers
    prefixes: Words64
    piece_starts: Numbers
    piece_stops: Numbers


_INTS = numba.types.Array(numba.int32, 1, "C")
WORKSPACE = numba.types.NamedTuple(
    (
        numba.types.Array(numba.int64, 1, "C"),
        numba.types.Array(numba.uint64, 2, "C"),
        *[_INTS] * 4,
        numba.types.Array(numba.uint64, 1, "C"),
        *[_INTS] * 2,
    ),
    Workspace,
)
"""Type of `Workspace` in kernels."""

KEPT_SLOTS = 1 << 18
"""Slots that a workspace keeps after a large document; 5 MB."""
LAST_EPOCH = 1 << 31


def make_workspace(n_words: int, n_pieces: int) -> Workspace:
    """Returns room for documents of at most so many words, and lines or paragraphs."""
    size = 1 << 12
    while size < 2 * max(n_words, n_pieces):
        size *= 2
    # the table has room for size / 2 entries, so the rest may have as much: fewer workspaces are made
    return Workspace(
        epoch=np.zeros(1, dtype=np.int64),
        table=np.zeros((size, 2), dtype=np.uint64),
        hits=np.zeros(size, dtype=np.int32),
        words=np.zeros(size // 2, dtype=np.int32),
        ends=np.zeros(size // 2 + 1, dtype=np.int32),
        byte_ends=np.zeros(size // 2 + 1, dtype=np.int32),
        prefixes=np.zeros(size // 2 + 1, dtype=np.uint64),
        piece_starts=np.zeros(size // 2, dtype=np.int32),
        piece_stops=np.zeros(size // 2, dtype=np.int32),
    )


@part
def next_epoch(workspace: Workspace) -> int:
    """Returns the number of a new count."""
    workspace.epoch[0] += 1
    return workspace.epoch[0]
