"""Pairs of documents that share a band key, between two crawls or inside one.

Which pairs are candidates is a property of the two indexes alone, never of what is published or of the order in which
crawls arrive: of the documents of an index with one key, the lowest few ids are candidates.
"""

import re
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.clusters import key_words, probe
from corpusmill.dedup.index import BandIndex, BandPart, Numbers, parts_of
from corpusmill.dedup.minhash import Keys
from corpusmill.errors import ConfigError

Mask: TypeAlias = npt.NDArray[np.bool_]

LOWEST = 8
"""Documents of one key that others are compared with. Ten thousand pages of one template that are no duplicates of each
other would otherwise be fifty million pairs."""
SHIFT = np.int64(32)
LOW_BITS = np.int64((1 << 32) - 1)
_NAME = re.compile(r"bands-(?P<first>\d+)-(?P<last>\d+)(-share-(?P<share>\d+)-of-(?P<shares>\d+))?")


def pair_codes(source: Numbers, target: Numbers) -> Numbers:
    """Returns one number a pair that sorts by (source, target), (pairs,); documents are numbered below 2^31."""
    return np.asarray((source << SHIFT) | target)


def pair_ends(codes: Numbers) -> tuple[Numbers, Numbers]:
    """Returns sources and targets of `pair_codes`, each (pairs,)."""
    return codes >> SHIFT, codes & LOW_BITS


class JoinPart(NamedTuple):
    """What one task of a band join does: some bands, and of their keys one share by the first byte.

    Attributes:
        first: The first band.
        after: The band after the last.
        share: Number of the share of the keys.
        shares: Shares of the keys; 1: the bands are joined whole.
    """

    first: int
    after: int
    share: int = 0
    shares: int = 1

    @property
    def name(self) -> str:
        """Name of the part among those of one join."""
        bands = f"bands-{self.first:03d}-{self.after - 1:03d}"
        return bands if self.shares == 1 else f"{bands}-share-{self.share:03d}-of-{self.shares:03d}"

    @classmethod
    def of_name(cls, name: str, bands: int) -> "JoinPart":
        """Returns the part with a name.

        Raises:
            ConfigError: No part of a join of so many bands has it.
        """
        found = _NAME.fullmatch(name)
        if found is not None:
            first, last = int(found["first"]), int(found["last"])
            share, shares = int(found["share"] or 0), int(found["shares"] or 1)
            if first <= last < bands and share < shares:
                return cls(first, last + 1, share, shares)
        raise ConfigError(
            f"part={name!r} is not of a join of {bands} bands; expected a name that 'index_bands' gave, like "
            f"{cls(0, bands).name!r}"
        )


def cut_join(bands: int, parts: int, at_most: int) -> tuple[JoinPart, ...]:
    """Returns a band join in at most so many parts of nearly equal size, which together are the whole join.

    Args:
        bands: Bands of the indexes.
        parts: What `index.parts_of` says about the indexes; bands are cut by their keys only where they are large.
        at_most: Upper bound of the parts, at least 1.
    """
    groups = min(bands, at_most)
    shares = max(1, min(parts, at_most // bands))
    bounds = [bands * i // groups for i in range(groups + 1)]
    return tuple(JoinPart(first, after, share, shares) for first, after in pairwise(bounds) for share in range(shares))


def candidate_pairs(
    source: BandIndex,
    wanted: Mask,
    target: BandIndex,
    bands: int,
    *,
    same: bool = False,
    part: JoinPart | None = None,
) -> Numbers:
    """Returns the candidates of some documents, as `pair_codes` without repeats, sorted, (pairs,).

    Args:
        source: Index of the documents that are looked up.
        wanted: Which of them, (documents of source,).
        target: Index that they are looked up in.
        bands: Bands of both indexes.
        same: Both are the index of one crawl: a document's candidates are those before it.
        part: Only the pairs that this part of the join finds; None: all.
    """
    found = np.empty(0, dtype=np.int64)
    if not wanted.any() or not len(target):
        return found
    first, after, share, shares = part or JoinPart(0, bands)
    each = -(-parts_of(source, target) // shares)  # what is in memory at a time lies inside one share
    parts = shares * each
    for band in range(first, after):
        for part_number in range(share * each, (share + 1) * each):
            asked = source.part(band, part_number, parts)
            documents = asked.documents(np.arange(len(asked.keys)))
            inside = wanted[documents]
            met = _meetings(asked.keys[inside], documents[inside], target.part(band, part_number, parts), same)
            found = np.unique(np.concatenate([found, met]))
    return found


def _meetings(keys: Keys, documents: Numbers, held: BandPart, same: bool) -> Numbers:
    """Returns the pairs of one band part with equal keys, without repeats, (pairs,)."""
    places = probe(keys, held.keys)
    hit = places >= 0
    places, documents = places[hit], documents[hit]
    asked_words, held_words = key_words(keys)[hit], key_words(held.keys)
    codes = [np.empty(0, dtype=np.int64)]
    for _ in range(LOWEST):
        if not len(places):
            break
        codes.append(pair_codes(documents, held.documents(places)))
        places = places + 1
        on = places < len(held_words)
        on[on] = (held_words[places[on]] == asked_words[on]).all(axis=1)
        places, documents, asked_words = places[on], documents[on], asked_words[on]
    found = np.unique(np.concatenate(codes))
    if same:
        first, second = pair_ends(found)
        found = found[second < first]
    return found
