"""How well predicted removals agree with labelled lines: F1 of kept lines, of kept characters, of removed lines.

ProX reports micro F1 of the removed lines. On full page text, where four of five lines are to be removed, "remove
everything" already scores 0.91 by it, so the F1 of the kept lines and of the kept characters stand beside it. Unsure
lines are left out of every score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.prox.labelled_pages import REMOVE, UNSURE, LabelledPage


@dataclass(frozen=True)
class LineScores:
    """Scores in [0, 1] of predicted removals.

    Attributes:
        keep_f1: F1 of the lines that stay.
        char_f1: The same weighted by characters.
        remove_f1: F1 of the lines that go (ProX's metric).
        n_pages: Pages that were scored.
    """

    keep_f1: float
    char_f1: float
    remove_f1: float
    n_pages: int

    def as_dict(self) -> dict[str, float]:
        """Returns the three scores and the number of pages."""
        return {
            "keep_f1": self.keep_f1,
            "char_f1": self.char_f1,
            "remove_f1": self.remove_f1,
            "n_pages": self.n_pages,
        }


def micro_scores(pages: Sequence[LabelledPage], removed: Sequence[npt.NDArray[np.bool_]]) -> LineScores:
    """Returns scores over all lines of all pages.

    Args:
        pages: Labelled pages.
        removed: For each page, which of its lines (blank ones included) were removed.
    """
    totals = sum((_counts(page, gone) for page, gone in zip(pages, removed, strict=True)), np.zeros((3, 3)))
    keep, chars, remove = (_f1(row) for row in totals)
    return LineScores(keep, chars, remove, len(pages))


def macro_scores(pages: Sequence[LabelledPage], removed: Sequence[npt.NDArray[np.bool_]]) -> LineScores:
    """Returns the mean over pages of each page's scores; a page with nothing to find and nothing found counts 1."""
    if not pages:
        return LineScores(0.0, 0.0, 0.0, 0)
    rows = [[_f1(row) for row in _counts(page, gone)] for page, gone in zip(pages, removed, strict=True)]
    keep, chars, remove = np.mean(rows, axis=0).tolist()
    return LineScores(keep, chars, remove, len(pages))


def _counts(page: LabelledPage, gone: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Returns (true positives, false positives, false negatives) for kept lines, kept characters, removed lines."""
    known = page.labels != UNSURE
    truth, guess = (page.labels == REMOVE)[known], gone[known]
    sizes = np.array([max(1, len(line)) for line in page.lines], dtype=np.float64)[known]
    kept = np.stack([~guess & ~truth, ~guess & truth, guess & ~truth]).astype(np.float64)
    went = np.stack([guess & truth, guess & ~truth, ~guess & truth]).astype(np.float64)
    return np.stack([kept.sum(axis=1), kept @ sizes, went.sum(axis=1)])


def _f1(counts: npt.NDArray[np.float64]) -> float:
    hits, false, missed = counts.tolist()
    return 2 * hits / (2 * hits + false + missed) if hits + false + missed else 1.0
