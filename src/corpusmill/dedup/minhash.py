"""MinHash signatures, bit for bit those of datatrove, and the keys of their bands.

A signature holds the least value of each of bands x rows random functions over a text's shingles (`shingles`). Two
texts agree in one value with a probability that is their Jaccard similarity; they are candidates where all values of a
band agree. With 14 bands of 8 a pair of similarity s is found with probability 1 - (1 - s^8)^14: 0.92 at s = 0.8.

Two engines give equal signatures: ``reference`` is the definition, ``compiled`` works by kernels on Arrow's buffers.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.shingles import Engine, WordSplitter, make_shingler
from corpusmill.errors import ConfigError

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
    Keys: TypeAlias = npt.NDArray[np.void]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array
    Keys: TypeAlias = npt.NDArray

Signatures = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]
_Sign: TypeAlias = Callable[[Signatures, Ids, Signatures, Signatures, Signatures], None]

MERSENNE_PRIME = np.uint64((1 << 61) - 1)
NO_SIGNATURE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Fills the row of a text without shingles (null, or fewer words than a shingle has); values are below 2^61 - 1."""
KEY_TYPE = np.dtype("V16")
"""Keys as numpy holds them: 16 bytes that sort as bytes, as Parquet and Arrow sort them."""

_BLOCK = 4096


@functools.lru_cache(maxsize=8)
def random_functions(n: int, seed: int = 1) -> tuple[Signatures, Signatures]:
    """Returns factors and summands of n random functions, (n,) each.

    Source: datatrove 0.10.1, ``MinhashDedupSignature.parameters``.
    """
    generator = np.random.RandomState(seed)
    factors = generator.randint(1, MERSENNE_PRIME, dtype=np.uint64, size=n)
    summands = generator.randint(0, MERSENNE_PRIME, dtype=np.uint64, size=n)
    factors.flags.writeable = summands.flags.writeable = False
    return factors, summands


class Signer:
    """Signs texts; one per process, because it remembers how words are split.

    Args:
        bands: Bands of a signature.
        rows: Values of a band.
        ngram: Words of a shingle.
        engine: ``compiled`` needs numba; both give the same values.
        words: Splits a simplified text into words; None: English, as spaCy does. Splitters of other languages are
            called once a text, whatever the engine.

    Attributes:
        shingler: Makes the shingles; `corpusmill.dedup.similarity` compares texts by the same.
    """

    def __init__(
        self,
        *,
        bands: int = 14,
        rows: int = 8,
        ngram: int = 5,
        engine: Engine = "compiled",
        words: WordSplitter | None = None,
    ) -> None:
        if min(bands, rows) < 1:
            raise ConfigError(f"bands={bands!r}, rows={rows!r}: each must be at least 1")
        self.shingler = make_shingler(engine, ngram, words)
        self._functions = random_functions(bands * rows)
        self._sign = _signing(engine)

    def signatures(self, texts: Strings) -> Signatures:
        """Returns one row a text, (texts, bands x rows); rows without a signature hold `NO_SIGNATURE`.

        Args:
            texts: string or large_string, may hold nulls.
        """
        found = np.full((len(texts), len(self._functions[0])), NO_SIGNATURE)
        for group in self.shingler.groups(texts):
            self._sign(group.hashes, group.ends, *self._functions, found[group.first : group.first + len(group.ends)])
        return found


def _sign(hashes: Signatures, ends: Ids, factors: Signatures, summands: Signatures, found: Signatures) -> None:
    """Lowers the values of signatures to those of the texts' shingles.

    The product wraps around at 2^64 before the modulus is taken, as in datatrove; the values would differ otherwise.
    """
    start = 0
    for row, stop in zip(found, ends.tolist(), strict=True):
        for first in range(start, stop, _BLOCK):
            block = hashes[first : min(first + _BLOCK, stop), None]
            np.minimum(row, ((block * factors + summands) % MERSENNE_PRIME).min(axis=0), out=row)
        start = stop


def _signing(engine: Engine) -> _Sign:
    if engine == "reference":
        return _sign
    from corpusmill.dedup.compiled.shingle_kernels import sign  # numba is in the extra "crawl"

    return sign


def signatures(
    texts: Strings, *, bands: int = 14, rows: int = 8, ngram: int = 5, engine: Engine = "compiled"
) -> Signatures:
    """Returns the signatures of English texts, (texts, bands x rows); see `Signer`."""
    return _signer(bands, rows, ngram, engine).signatures(texts)


@functools.lru_cache(maxsize=2)
def _signer(bands: int, rows: int, ngram: int, engine: Engine) -> Signer:
    return Signer(bands=bands, rows=rows, ngram=ngram, engine=engine)


def has_signature(found: Signatures) -> npt.NDArray[np.bool_]:
    """Returns which rows of signatures belong to a text with shingles, (texts,)."""
    return np.asarray(found[:, 0] != NO_SIGNATURE)


def band_keys(found: Signatures, bands: int = 14) -> Keys:
    """Returns the 128-bit key of each band: a digest of the band's number and its values.

    Keys of different bands never meet. Rows without a signature get zeros, which must not be joined: see
    `has_signature` and `sorted_bands`.

    Args:
        found: Signatures, (texts, bands x rows).
        bands: Bands of a signature.

    Returns:
        Keys of type `KEY_TYPE`, (texts, bands).
    """
    n, width = found.shape
    if width % bands:
        raise ConfigError(f"bands={bands!r}: signatures of {width} values do not divide into so many bands")
    data = np.ascontiguousarray(found, dtype="<u8").tobytes()
    step = 8 * width // bands
    starts = [hashlib.blake2b(band.to_bytes(4, "little"), digest_size=16) for band in range(bands)]
    keys = bytearray(16 * n * bands)
    for row in np.flatnonzero(has_signature(found)).tolist():
        for band, start in enumerate(starts):
            at = row * bands + band
            digest = start.copy()
            digest.update(data[at * step : (at + 1) * step])
            keys[16 * at : 16 * at + 16] = digest.digest()
    return np.frombuffer(bytes(keys), dtype=KEY_TYPE).reshape(n, bands)


def key_column(keys: Keys) -> Strings:
    """Returns keys, (n,), as an Arrow array of binary(16)."""
    data = pa.py_buffer(keys.tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, data])


def sorted_bands(found: Signatures, ids: Ids, bands: int = 14) -> Iterator[tuple[Keys, Ids]]:
    """Yields keys and ids of each band in order, sorted by (key, id), without texts that have no signature.

    Args:
        found: Signatures, (texts, bands x rows).
        ids: Number of each text, (texts,).
        bands: Bands of a signature.
    """
    kept = has_signature(found)
    keys, kept_ids = band_keys(found[kept], bands), np.asarray(ids)[kept]
    for band in range(bands):
        column = np.ascontiguousarray(keys[:, band])
        order = sort_order(column, kept_ids)
        yield column[order], kept_ids[order]


def sort_order(keys: Keys, ids: Ids) -> Ids:
    """Returns the rows in the order of (key as bytes, id), (n,): ``keys[order]`` is sorted.

    Needs 12 bytes a key beside the arguments. Linear time for digests; n log n for any bytes.

    Args:
        keys: Keys of `KEY_TYPE`, (n,).
        ids: Number of each key's document, (n,).
    """
    from corpusmill.dedup.compiled.cluster_kernels import order_rows  # numba is in the extra "crawl"

    words = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    bits = max(1, min(24, len(words).bit_length() - 2))
    order = np.empty(len(words), dtype=np.int64)
    numbers = np.ascontiguousarray(ids, dtype=np.int64)
    order_rows(words, numbers, 64 - bits, np.zeros((1 << bits) + 1, dtype=np.int64), order)
    return order
