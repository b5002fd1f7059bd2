"""The deduplication index of one crawl: the sorted band keys of its documents, read a part at a time.

Documents have numbers: their places in the sorted ids of the index. So the lowest number is the lowest id.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.dedup.minhash import KEY_TYPE, Keys, Signer, Strings, band_keys, has_signature

Numbers = npt.NDArray[np.int64]
PART_KEYS = 4_000_000
"""Keys of one band that are in memory at a time, per index."""


class BandPart(NamedTuple):
    """Consecutive rows of one band, sorted by (key, document); no key is cut.

    Attributes:
        keys: Of type `KEY_TYPE`, (n,).
        documents: Returns the numbers of the documents in some rows, (rows,), from the rows' places, (rows,).
    """

    keys: Keys
    documents: Callable[[Numbers], Numbers]


class BandIndex(Protocol):
    """The index of a crawl, wherever it is stored."""

    def __len__(self) -> int:
        """Returns the number of documents."""

    @property
    def doc_ids(self) -> Strings:
        """Ids of its documents, sorted; a document's place is its number."""

    def part(self, band: int, part: int, parts: int) -> BandPart:
        """Returns the rows of a band whose keys begin with the given share of all first bytes.

        Args:
            band: Number of the band.
            part: Number of the part.
            parts: Parts that the band is cut into, at most 256; equal keys of any two indexes lie in equal parts.
        """


def part_bounds(part: int, parts: int) -> tuple[bytes | None, bytes | None]:
    """Returns the first key of a part and the first key after it; None for open ends."""
    first, after = 256 * part // parts, 256 * (part + 1) // parts
    low = None if part == 0 else bytes([first]) + bytes(15)
    return low, None if part == parts - 1 else bytes([after]) + bytes(15)


def parts_of(*indexes: BandIndex) -> int:
    """Returns into how many parts the bands of indexes are cut, so that none has many more than `PART_KEYS` rows."""
    return min(256, 1 + max(len(index) for index in indexes) // PART_KEYS)


class MemoryIndex:
    """An index in memory, made from texts; takes 16 bytes x bands and the id for each document.

    Args:
        signed: Ids and their band keys, each (n,) and (n, bands), in any order; see `sign`.
        bands: Bands of a signature.
        at_most: Upper bound of the number of documents; room is made for so many.
    """

    def __init__(self, signed: Iterable[tuple[Column, Keys]], bands: int, at_most: int) -> None:
        self._keys = np.empty((bands, at_most), dtype=KEY_TYPE)
        chunks: list[Strings] = []
        n = 0
        for ids, keys in signed:
            self._keys[:, n : n + len(keys)] = keys.T
            n += len(keys)
            chunks += ids.chunks
        unsorted = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
        self._order = np.asarray(pc.array_sort_indices(unsorted)).astype(np.int64)
        self._doc_ids = unsorted.take(pa.array(self._order, pa.int64()))

    def __len__(self) -> int:
        return len(self._doc_ids)

    @property
    def doc_ids(self) -> Strings:
        """Ids of its documents, sorted."""
        return self._doc_ids

    def band(self, band: int) -> tuple[Keys, Numbers]:
        """Returns keys and documents of a whole band, sorted by (key, document), each (n,)."""
        column = self._keys[band][self._order]
        order = np.argsort(column.view("S16"), kind="stable")
        return column[order], order.astype(np.int64)

    def part(self, band: int, part: int, parts: int) -> BandPart:
        """Returns the rows of a part of a band; see `BandIndex`."""
        keys, documents = self.band(band)
        first = keys.view(np.uint8).reshape(-1, 16)[:, 0].astype(np.int64)
        inside = (first >= 256 * part // parts) & (first < 256 * (part + 1) // parts)
        return BandPart(keys[inside], documents[inside].__getitem__)


def sign(batches: Iterable[tuple[Column, Column]], signer: Signer, bands: int) -> Iterator[tuple[Column, Keys]]:
    """Yields ids and band keys of the documents that have a signature, a batch at a time.

    Args:
        batches: Ids and texts.
        signer: Signs the texts.
        bands: Bands of a signature.
    """
    for ids, texts in batches:
        if not len(ids):
            continue
        found = signer.signatures(texts.combine_chunks())
        signed = has_signature(found)
        yield ids.filter(pa.array(signed)), band_keys(found[signed], bands)
