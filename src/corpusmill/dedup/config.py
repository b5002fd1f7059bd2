"""Settings of deduplication."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corpusmill.config import StageConfig, fingerprint

INDEX_VERSION = 1
"""Version of the band keys in the index; another one is another index."""


LINES_VERSION = 1
"""Version of what repeated lines are; another one removes others."""


class NearConfig(StageConfig):
    """Which documents are near duplicates: MinHash finds candidates, the exact similarity decides.

    The defaults are those of datatrove and FineWeb (14 bands of 8 values over runs of 5 words). A pair of similarity s
    is a candidate with probability 1 - (1 - s^8)^14: 0.05 at 0.5, 0.56 at 0.7, 0.92 at 0.8, above 0.9999 at 0.95.
    """

    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.5
    """Least Jaccard similarity of the two texts' sets of word runs, computed exactly, at which they are duplicates."""
    bands: Annotated[int, Field(ge=1, le=128)] = 14
    """Bands of a signature; texts that agree in one whole band are compared."""
    rows: Annotated[int, Field(ge=1, le=64)] = 8
    """Values of a band."""
    ngram: Annotated[int, Field(ge=1, le=32)] = 5
    """Words of a run; a text with fewer has no signature and is compared exactly only."""

    def index_fingerprint(self) -> str:
        """Returns what the index depends on; the threshold is not in it, so that it can change without a new index."""
        return f"minhash-{INDEX_VERSION}-" + fingerprint([INDEX_VERSION, self.bands, self.rows, self.ngram])


Survivor = Literal["oldest_crawl", "first_published"]
"""Policies; see `DeduplicationConfig.survivor`."""


class LinesConfig(StageConfig):
    """Which repeated lines or paragraphs are removed from the documents of a crawl; the first of each stays."""

    unit: Literal["line", "paragraph"] = "line"
    """What is compared: a line, or a run of lines between blank ones. Equal means equal text with runs of white space
    folded, as for whole documents."""
    min_words: Annotated[int, Field(ge=1, le=1000)] = 5
    """Units of fewer words, separated by white space, are never removed: C4's least number of words of a line."""
    max_removed: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A document that loses a larger share of the characters of its units is removed as a whole; one that loses all of
    them always is."""


class DeduplicationConfig(StageConfig):
    """Which documents count as duplicates, and which copy stays."""

    method: Literal["exact"] | None = "exact"
    """``exact``: equal 128-bit hash of the cleaned text with runs of whitespace folded; None: nothing is removed."""
    near: NearConfig | None = None
    """Near duplicates as well, an index of each crawl is kept for it; None: exact copies only."""
    across_crawls: bool = True
    """True: a document whose copy stands in the published corpus of an older crawl is removed."""
    lines: LinesConfig | None = None
    """Lines or paragraphs that stand in the crawl more than once as well; None: whole documents only."""
    survivor: Survivor = "oldest_crawl"
    """Which copy stays; within a crawl always the one with the lowest document id. ``oldest_crawl``: that of the oldest
    crawl, by the crawls' ids; newer crawls give up to a backfill what it holds. ``first_published``: the one that is
    published already, whatever its crawl; nothing is ever retracted, and the corpus depends on the order of runs."""

    @property
    def compares_crawls(self) -> bool:
        """Whether other crawls matter to this recipe's deduplication at all."""
        return self.across_crawls and self.method is not None

    def fingerprint(self) -> str:
        """Returns 16 hex digits over all fields; lines count where they are set, so that older corpora keep theirs."""
        return fingerprint(self.model_dump(mode="json", exclude=set() if self.lines else {"lines"}))

    @model_validator(mode="after")
    def _first_published_needs_crawls(self) -> Self:
        if self.survivor == "first_published" and not self.compares_crawls:
            raise ValueError(
                "survivor='first_published' says which copy of several crawls stays, but nothing is compared across "
                "crawls: set across_crawls=True and method='exact', or leave survivor out"
            )
        return self

    @model_validator(mode="after")
    def _near_needs_exact(self) -> Self:
        if self.near is not None and self.method is None:
            raise ValueError("near=... needs method='exact': the index holds one document of each exact text")
        return self
