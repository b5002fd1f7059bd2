"""Settings of deduplication."""

from typing import Literal

from corpusmill.config import StageConfig


class DeduplicationConfig(StageConfig):
    """Which documents count as duplicates, and which copy stays."""

    method: Literal["exact"] | None = "exact"
    """``exact``: equal 128-bit hash of the cleaned text with runs of whitespace folded; None: nothing is removed."""
    across_crawls: bool = True
    """True: a document whose copy stands in the published corpus of an older crawl is removed."""

    @property
    def compares_crawls(self) -> bool:
        """Whether other crawls matter to this recipe's deduplication at all."""
        return self.across_crawls and self.method is not None

    survivor: Literal["oldest_crawl"] = "oldest_crawl"
    """The copy of the oldest crawl stays, within a crawl the lowest document id; crawls are ordered by their ids."""
