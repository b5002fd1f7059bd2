"""The total order of selection: order-preserving integer keys of scores, and hashes of ids that break ties."""

import hashlib
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

Ids: TypeAlias = Any
"""Document ids as a sequence of str or an Arrow column; a uint64 array is taken as the tie-break values themselves."""
Strata: TypeAlias = Any
"""One label per row, a sequence of str or an Arrow column; None puts all rows in one stratum."""

EVERYTHING = "*"
"""Name of the only stratum where rows are not split."""
_SIGN = np.uint64(1 << 63)


class Cut(NamedTuple):
    """A place in the order of (key, tie-break): the first row that is not below it."""

    key: int
    tie: int


START = Cut(0, 0)
"""Below every row."""
END = Cut(1 << 64, 0)
"""Above every row."""


def keys_of(values: Any) -> np.ndarray:
    """Returns uint64 keys that order like the float64 values; -0.0 and +0.0 share a key, NaN must not be among them."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def float_of_key(key: int) -> float:
    """Returns the float64 of one key: the inverse of `keys_of`."""
    bits = key & ((1 << 63) - 1) if key >> 63 else key ^ ((1 << 64) - 1)
    return float(np.array(bits, dtype=np.uint64).view(np.float64))


def tiebreaks(ids: Ids, seed: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Returns uint64 hashes of the ids: BLAKE2b with 8 bytes over seed and id, never the row's place.

    Args:
        ids: Document ids, or a uint64 array that is returned as it is.
        seed: Seed of the hash.
        rows: Row numbers to compute it for; None for all.
    """
    if isinstance(ids, np.ndarray) and ids.dtype == np.uint64:
        return ids if rows is None else ids[rows]
    if rows is not None:
        ids = ids.take(pa.array(rows)) if isinstance(ids, pa.Array | pa.ChunkedArray) else [ids[i] for i in rows]
    texts = ids.to_pylist() if isinstance(ids, pa.Array | pa.ChunkedArray) else ids
    prefix = hashlib.blake2b(f"{seed}\x00".encode(), digest_size=8)
    out = np.empty(len(texts), dtype=np.uint64)
    for i, text in enumerate(texts):
        state = prefix.copy()
        state.update(text.encode("utf-8", "surrogatepass"))
        out[i] = int.from_bytes(state.digest(), "big")
    return out


def random_scores(ids: Ids, seed: int) -> np.ndarray:
    """Returns uniform float64 scores in [0, 1] that depend on seed and id only, so they are nested across fractions."""
    return tiebreaks(ids, seed).astype(np.float64) / 2.0**64


def codes_of(strata: Strata, n: int) -> tuple[list[str], np.ndarray]:
    """Returns the names of the strata and each row's index into them; a null label is the stratum ``""``."""
    if strata is None:
        return [EVERYTHING], np.zeros(n, dtype=np.int64)
    column: Any = (
        strata if isinstance(strata, pa.Array | pa.ChunkedArray) else pa.array(list(strata), type=pa.large_string())
    )
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    encoded: Any = column.cast(pa.large_string()).fill_null("").dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def rows_by_code(codes: np.ndarray, n: int) -> list[Any]:
    """Returns for each of n codes an index of the rows that have it: everything as a slice where there is one code."""
    if n == 1:
        return [slice(None)]
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(1, n))) if n else []
