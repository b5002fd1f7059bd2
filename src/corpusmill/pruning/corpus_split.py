"""Splits a corpus by keyed hashes of document ids: a part for reference models, the rest for the pool they score.

A document's part is a function of its id, the seed and the share alone: not of the crawl it came with, its place, or
what else was crawled. So the parts stay disjoint for crawls that come later, and a larger share holds the smaller one.
Importing this module is cheap, because DAG files read recipes that hold splits.

Source: "When Less is More" (arXiv 2309.04564v1), section 3.2: perplexity references never saw the pool, memorization
references did.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Part = Literal["reserved", "pool"]
_HASHES = 1 << 64


def place_of(doc_id: str, seed: int, purpose: str) -> int:
    """Returns a document's place in [0, 2**64): the same for ever, and independent for other seeds and purposes."""
    digest = hashlib.blake2b(doc_id.encode("utf-8", "surrogatepass"), digest_size=8, key=f"{purpose}:{seed}".encode())
    return int.from_bytes(digest.digest(), "big")


def is_within(doc_id: str, share: Fraction, seed: int, purpose: str) -> bool:
    """Returns whether a document belongs to the first ``share`` of all places; exact for any share in [0, 1]."""
    return place_of(doc_id, seed, purpose) * share.denominator < share.numerator * _HASHES


@dataclass(frozen=True)
class CorpusSplit:
    """A split of a corpus in two parts.

    Attributes:
        share: Of the documents that are reserved for reference models, in (0, 1).
        seed: Another seed, another split.
    """

    share: Fraction
    seed: int = 0

    def part_of(self, doc_id: str) -> Part:
        """Returns ``reserved`` or ``pool``."""
        return "reserved" if is_within(doc_id, self.share, self.seed, "split") else "pool"

    def in_part(self, doc_ids: Iterable[str], part: Part) -> list[bool]:
        """Returns for each document whether it belongs to a part."""
        return [self.part_of(doc_id) == part for doc_id in doc_ids]

    def to_json(self) -> dict[str, Any]:
        """Returns the split as it stands with a model's training data."""
        return {"share": str(self.share), "seed": self.seed}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CorpusSplit":
        """Returns the split that `to_json` wrote."""
        return cls(Fraction(values["share"]), int(values["seed"]))
