"""The two steps of near deduplication that shuffle, as one interface of engines, and the engine in this process.

Both engines, this and `corpusmill.runner.spark_shuffles`, give equal answers.
"""

from typing import Protocol

from corpusmill.dedup.candidates import JoinPart, Mask, candidate_pairs
from corpusmill.dedup.clusters import Edges, Ids
from corpusmill.dedup.index import BandIndex, Numbers
from corpusmill.dedup.minhash import Strings
from corpusmill.dedup.policy import embedded_roots


class Shuffles(Protocol):
    """Joins bands and finds clusters."""

    def pairs(self, source: BandIndex, wanted: Mask, target: BandIndex, part: JoinPart | None = None) -> Numbers:
        """Returns the candidates of documents of one index in another; see `candidates.candidate_pairs`.

        Args:
            source: Index of the documents that are looked up.
            wanted: Which of them, (documents of source,).
            target: Index that they are looked up in; the source itself: a document's candidates are those before it.
            part: Only the pairs that this part of the join finds; None: all.
        """
        ...

    def roots(self, doc_ids: Strings, edges: Edges) -> Ids:
        """Returns the lowest number of each document's component, (documents,).

        Args:
            doc_ids: Sorted ids of the documents, (documents,).
            edges: Pairs of their numbers, (edges, 2).
        """
        ...


class EmbeddedShuffles:
    """The engine of one process, by kernels.

    Args:
        bands: Bands of all indexes.
    """

    def __init__(self, bands: int) -> None:
        self.bands = bands

    def pairs(self, source: BandIndex, wanted: Mask, target: BandIndex, part: JoinPart | None = None) -> Numbers:
        """Returns the candidates of documents of one index in another."""
        return candidate_pairs(source, wanted, target, self.bands, same=source is target, part=part)

    def roots(self, doc_ids: Strings, edges: Edges) -> Ids:
        """Returns the lowest number of each document's component, (documents,)."""
        return embedded_roots(doc_ids, edges)
