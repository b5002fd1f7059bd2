"""Near duplicates of a crawl, inside it and against published older crawls.

The rule (decision 0008): a document is removed where it matches an earlier document that the corpus stands for. Earlier
means of an older crawl, or of the same crawl with a lower id. The corpus stands for a document that is published (in
one crawl: that deduplication keeps), and for one that was itself removed by this rule. So removal goes through chains:
of A ~ B ~ C with C unlike A, C goes with B. That makes the rule monotone: publishing an older crawl can take documents
from newer ones and never gives any back, and any order of backfills ends in the same corpus.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.batches import Column
from corpusmill.dedup.candidates import Mask, candidate_pairs, pair_ends
from corpusmill.dedup.index import BandIndex, Numbers
from corpusmill.dedup.scratch_texts import ScratchTexts
from corpusmill.dedup.shingles import Shingler
from corpusmill.dedup.similarity import similarities

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array

Similarities = npt.NDArray[np.float64]
Node = tuple[int, int]
"""A document: the age of its crawl (0 is the oldest) and its number there."""

BATCH_BYTES = 32 << 20
"""Bytes of text that are compared at a time."""
MAX_CHAIN = 32
"""Longest chain of removed documents that is followed to a published one; what is farther stays."""


@dataclass(frozen=True)
class CrawlDocuments:
    """A crawl as deduplication sees it.

    Attributes:
        crawl: Crawl id.
        index: Its band keys.
        read_texts: Yields ids and texts, batch by batch, of at least the documents whose ids it is given.
        read_published: Returns which documents of the index the corpus holds, (documents,); not asked of the crawl that
            is deduplicated.
    """

    crawl: str
    index: BandIndex
    read_texts: Callable[[Strings], Iterable[tuple[Column, Column]]]
    read_published: Callable[[], Mask]


Join: TypeAlias = Callable[[BandIndex, Mask, BandIndex], Numbers]
"""Returns the candidates of some documents of an index in another one, or in itself, as `candidate_pairs` does."""


class Match(NamedTuple):
    """Why a document is removed.

    Attributes:
        target: The earlier document that it matches.
        similarity: Exact similarity of the two, at least the threshold.
        survivor: The document that stands for both: the target, or what the target was removed for.
    """

    target: Node
    similarity: float
    survivor: Node


class NearDuplicates:
    """Finds the near duplicates of the youngest of some crawls; a context manager for its scratch files.

    Args:
        crawls: Oldest first, the crawl that is deduplicated last.
        bands: Bands of all indexes.
        threshold: Least similarity of duplicates.
        shingler: Makes the shingles that similarity counts.
        join: Joins the bands of the youngest crawl with those of each; None: in this process. What documents were
            removed for is looked up in this process always: those are few.
    """

    def __init__(
        self,
        crawls: Sequence[CrawlDocuments],
        bands: int,
        threshold: float,
        shingler: Shingler,
        join: Join | None = None,
    ) -> None:
        self._crawls = list(crawls)
        self._own = len(self._crawls) - 1
        self._bands, self._threshold, self._shingler = bands, threshold, shingler
        self._join = join or self._lookup
        self._files = ExitStack()
        self._texts = [self._files.enter_context(ScratchTexts()) for _ in self._crawls]
        self._masks: tuple[int, Mask] = (-1, np.empty(0, dtype=np.bool_))

    def __enter__(self) -> "NearDuplicates":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def find(self, removed: Mask, held: Mask | None = None) -> dict[int, Match]:
        """Returns the match of each document that is removed, by its number.

        Args:
            removed: Which documents are removed already, as exact copies: they are not looked at, and others of the
                crawl may match them, (documents,).
            held: Which documents are published already and stay unless what they match is published, (documents,): no
                chain through removed documents takes them, for one of those may have gone for them. None: none.
        """
        own = self._own
        left = ~removed
        index = self._crawls[own].index
        pairs = [self._join(index, left, crawl.index) for crawl in self._crawls]
        self._fetch(own, np.concatenate([*(pair_ends(codes)[0] for codes in pairs), pair_ends(pairs[own])[1]]))
        found: dict[int, Match] = {}

        def take(age: int, codes: Numbers) -> None:
            for source, target, value in self._first_matches(own, age, codes[left[pair_ends(codes)[0]]]):
                found[source] = Match((age, target), value, (age, target))
                left[source] = False

        hidden = []
        for age in range(own):
            published, others = self._published(age, pairs[age])
            take(age, published)
            hidden.append(others)
        take(own, pairs[own])
        chained = left if held is None else left & ~held
        found |= self._through_removed([codes[chained[pair_ends(codes)[0]]] for codes in hidden])
        return dict(sorted(found.items()))

    def _lookup(self, source: BandIndex, wanted: Mask, target: BandIndex) -> Numbers:
        return candidate_pairs(source, wanted, target, self._bands, same=source is target)

    def _published(self, age: int, codes: Numbers) -> tuple[Numbers, Numbers]:
        """Returns the pairs with a published target, and the others."""
        if not len(codes):
            return codes, codes
        if self._masks[0] != age:  # of one crawl at a time, so that memory does not grow with their number
            self._masks = age, self._crawls[age].read_published()
        inside = self._masks[1][pair_ends(codes)[1]]
        return codes[inside], codes[~inside]

    def _fetch(self, age: int, documents: Numbers) -> None:
        """Reads the texts of documents that were not read before, in one pass over their crawl."""
        missing = self._texts[age].missing(documents)
        if len(missing):
            crawl = self._crawls[age]
            doc_ids = crawl.index.doc_ids.take(pa.array(missing, pa.int64()))
            self._texts[age].add(missing, doc_ids, crawl.read_texts(doc_ids))

    def _first_matches(self, source: int, target: int, codes: Numbers) -> list[tuple[int, int, float]]:
        """Returns (document, the lowest document that it matches, similarity) of all that match any."""
        found: list[tuple[int, int, float]] = []
        while len(codes):  # one candidate of each document at a time: most match the first one
            documents, starts = np.unique(pair_ends(codes)[0], return_index=True)
            values = self._similarities(source, target, codes[starts])
            matched = values >= self._threshold
            numbers = documents[matched].tolist()
            found += zip(numbers, pair_ends(codes[starts])[1][matched].tolist(), values[matched].tolist(), strict=True)
            rest = np.delete(codes, starts)
            codes = rest[~np.isin(pair_ends(rest)[0], documents[matched])]
        return found

    def _similarities(self, source: int, target: int, codes: Numbers) -> Similarities:
        """Returns the similarity of each pair, (pairs,); a bounded number of bytes of text is in memory."""
        left, right = pair_ends(codes)
        self._fetch(source, left)
        self._fetch(target, right)
        sizes = self._texts[source].sizes(left) + self._texts[target].sizes(right)
        batches = np.cumsum(sizes) // BATCH_BYTES
        cuts = np.flatnonzero(np.diff(batches)) + 1
        found = [np.empty(0)]
        for rows in np.split(np.arange(len(codes)), cuts):
            if len(rows):
                found.append(self._batch(source, target, left[rows], right[rows]))
        return np.concatenate(found)

    def _batch(self, source: int, target: int, left: Numbers, right: Numbers) -> Similarities:
        sources, source_at = np.unique(left, return_inverse=True)
        targets, target_at = np.unique(right, return_inverse=True)
        parts = [self._texts[source].read(sources), self._texts[target].read(targets)]
        pairs = np.stack([source_at, len(sources) + target_at], axis=1)
        return similarities(pa.chunked_array(parts).combine_chunks(), pairs, self._shingler)

    def _through_removed(self, hidden: Sequence[Numbers]) -> dict[int, Match]:
        """Returns the matches of documents whose only matches in older crawls are not published themselves.

        Args:
            hidden: Pairs with unpublished targets of each older crawl, from documents that match nothing else.
        """
        edges: dict[Node, list[tuple[Node, float]]] = {}
        new: set[Node] = set()
        for age, codes in enumerate(hidden):
            new |= self._add_edges(edges, self._own, age, codes)
        survivors: dict[Node, Node] = {}
        for _ in range(MAX_CHAIN):
            if not new:
                break
            asked, new = new, set()
            for age in sorted({age for age, _ in asked}):
                new |= self._follow(age, sorted(n for a, n in asked if a == age), edges, survivors)
            new -= {*edges, *survivors}
        return _resolved(self._own, edges, survivors)

    def _follow(
        self, age: int, documents: list[int], edges: dict[Node, list[tuple[Node, float]]], survivors: dict[Node, Node]
    ) -> set[Node]:
        """Looks for what unpublished documents were removed for; returns unpublished documents to look at next."""
        wanted = np.zeros(len(self._crawls[age].index), dtype=np.bool_)
        wanted[documents] = True
        new: set[Node] = set()
        for target in range(age + 1):
            codes = self._lookup(self._crawls[age].index, wanted, self._crawls[target].index)
            published, hidden = self._published(target, codes)
            for source, number, _ in self._first_matches(age, target, published):
                survivors[age, source] = (target, number)
                wanted[source] = False
            new |= self._add_edges(edges, age, target, hidden[wanted[pair_ends(hidden)[0]]])
        return new

    def _add_edges(
        self, edges: dict[Node, list[tuple[Node, float]]], source: int, target: int, codes: Numbers
    ) -> set[Node]:
        values = self._similarities(source, target, codes)
        codes, values = codes[values >= self._threshold], values[values >= self._threshold]
        new = set()
        for left, right, value in zip(*(part.tolist() for part in (*pair_ends(codes), values)), strict=True):
            edges.setdefault((source, left), []).append(((target, right), value))
            new.add((target, right))
        return new


def _resolved(own: int, edges: dict[Node, list[tuple[Node, float]]], survivors: dict[Node, Node]) -> dict[int, Match]:
    """Returns the matches of the own crawl's documents, from edges to earlier documents and what those stand for."""
    known, found = dict(survivors), {}
    for node in sorted(edges):  # oldest first, so that what an edge leads to is known before it is needed
        for target, value in edges[node]:
            if node not in known and target in known:
                known[node] = known[target]
                if node[0] == own:
                    found[node[1]] = Match(target, value, known[target])
    return found
