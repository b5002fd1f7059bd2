"""Shares that say whether a refiner works as it should, and the bounds beyond which somebody should look.

Source: arXiv 2409.17115, appendix: failures of 0.04 % (documents) and 0.36 % (chunks), which are repeated or empty
outputs and strings that do not occur; 3.7 calls a program on web pages, 2.7 on mathematics.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from corpusmill.config import StageConfig
from corpusmill.report import StageReport

Share = Annotated[float, Field(ge=0.0, le=1.0)]

MEANINGS: dict[str, str] = {
    "kept_share": "documents that go on, of those that the stage saw",
    "failed_share": "chunks (documents) whose output is empty, no program, rejected or was never asked for",
    "truncated_share": "chunks whose output met the token limit, which can cut a call in two",
    "looped_share": "chunks that were stopped because they repeated a call",
    "untouched_share": "chunks that stay as they are",
    "calls_per_program": "calls of a chunk's program, keep flags counted",
    "normalize_miss_share": "replacements whose source does not occur in the text",
    "words_removed_share": "words that edits take away, of all words",
}
"""What each number is; all but ``calls_per_program`` are shares in [0, 1]."""


class RefinementAlarms(StageConfig):
    """Bounds of a refinement stage over a crawl; what leaves them is a warning and stops nothing. None: no bound."""

    min_kept_share: Share | None = None
    """Documents that go on, at least. The paper keeps 23 to 29 % of the tokens of raw web pages."""
    max_kept_share: Share | None = None
    """Documents that go on, at most: a refiner that drops nothing may be broken."""
    max_failed_share: Share | None = 0.01
    """Failed outputs at most: about three times the paper's 0.36 %."""
    max_truncated_share: Share | None = 0.01
    """Outputs cut at the token limit at most: they are among the paper's 0.36 % of failures."""
    max_looped_share: Share | None = 0.01
    """Outputs stopped in a loop at most: they are among the paper's 0.36 % of failures."""
    max_untouched_share: Share | None = None
    """Chunks that stay as they are, at most."""
    min_calls_per_program: Annotated[float, Field(ge=0.0)] | None = None
    """Calls of a chunk's program, at least."""
    max_calls_per_program: Annotated[float, Field(ge=0.0)] | None = None
    """Calls of a chunk's program, at most."""
    max_normalize_miss_share: Share | None = None
    """Replacements whose source does not occur, at most."""
    max_words_removed_share: Share | None = None
    """Words that edits take away, at most."""
    min_outputs: Annotated[int, Field(ge=1)] = 1000
    """Outputs below which nothing is judged: at the paper's 0.36 % of failures, more than 10 of 1000 come by chance in
    0.1 % of the cases, 1 of 50 in 17 %."""

    def bounds(self, name: str) -> tuple[float | None, float | None]:
        """Returns the lowest and the highest accepted value of one number of `MEANINGS`."""
        return getattr(self, f"min_{name}", None), getattr(self, f"max_{name}", None)


def refinement_shares(report: StageReport) -> dict[str, float]:
    """Returns the numbers of `MEANINGS` of a refinement stage on a shard or crawl; those with nothing below are absent.

    The document stage has ``kept_share`` and ``failed_share`` only.
    """
    metrics: Mapping[str, float] = report.metrics
    failures = metrics.get("failures", 0.0)
    ratios: dict[str, tuple[float, float]] = {"kept_share": (report.documents_kept, report.documents_in)}
    if report.stage == "refine_documents":
        ratios["failed_share"] = (metrics.get("unparsed", 0.0) + failures, metrics.get("calls", 0.0))
    else:
        chunks = metrics.get("chunks", 0.0)
        ratios |= {
            # a document that the refiner fails on has no chunks: it counts as one
            "failed_share": (metrics.get("chunks_failed", 0.0) + failures, chunks + failures),
            "truncated_share": (metrics.get("chunks_truncated", 0.0), chunks),
            "looped_share": (metrics.get("chunks_looped", 0.0), chunks),
            "untouched_share": (metrics.get("chunks_untouched", 0.0), chunks),
            "calls_per_program": (metrics.get("calls", 0.0), chunks),
            "normalize_miss_share": (metrics.get("normalize_misses", 0.0), metrics.get("normalizes", 0.0)),
            "words_removed_share": (metrics.get("words_removed", 0.0), metrics.get("words_before", 0.0)),
        }
    return {name: part / whole for name, (part, whole) in ratios.items() if whole}


def n_outputs(report: StageReport) -> int:
    """Returns how many outputs the numbers of a report rest on."""
    name = "calls" if report.stage == "refine_documents" else "chunks"
    return int(report.metrics.get(name, 0) + (0 if name == "calls" else report.metrics.get("failures", 0)))
