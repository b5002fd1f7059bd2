"""Trains the document head on people's verdicts, and measures it by nested cross-validation.

Two kinds of documents with labels derived from line labels stand beside the judged ones with a small weight:
main-content texts of articles (keep) and texts made of a page's boilerplate lines alone (drop). They carry the head
over to other languages than the judged documents' English and to texts that hold nothing but menus. The beginnings of
the articles are a third kind (keep): people judged short documents bad more often, and without these the head takes
shortness itself for a fault.

Every figure comes from documents that a head did not see: outer folds are predicted by a head whose ridges were chosen
by inner folds of the others. The threshold is chosen from those predictions, for a precision of dropping.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.errors import PermanentDataError
from corpusmill.prox.document_evaluation import area_under_curve
from corpusmill.prox.document_features import DocumentFeatures, document_features
from corpusmill.prox.document_head import DocumentHead, fit_document_head
from corpusmill.prox.labelled_pages import REMOVE, LabelledPage, read_labelled_pages

RIDGES = ((150.0, 0.03), (150.0, 0.1), (50.0, 0.1))
"""Ridges of dense features and of words, in documents, that inner folds choose from."""
DERIVED_WEIGHT, DERIVED_PAGES = 0.05, 100
"""Weight of a document with a derived label beside 1 for a judged one, and pages that such documents are made of."""
EXCERPT_WORDS = 100
"""White-space words of an article's beginning that stands as a short good document; whole lines are taken."""
MIN_PRECISION = 0.9
"""Of the judged documents that are dropped, at least this share must be bad; the lowest such threshold is taken."""
_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_FOLDS, _REPEATS, _INNER_FOLDS = 5, 2, 3


@dataclass(frozen=True)
class Verdicts:
    """Documents with verdicts.

    Attributes:
        documents: Features of each document.
        dropped: True where the document is bad for pretraining.
        unanimous: True where all judges agreed; all True where the data does not say.
    """

    documents: list[DocumentFeatures]
    dropped: npt.NDArray[np.bool_]
    unanimous: npt.NDArray[np.bool_]

    def some(self, rows: npt.NDArray[np.int64]) -> "Verdicts":
        """Returns the documents of the given rows."""
        return Verdicts([self.documents[row] for row in rows], self.dropped[rows], self.unanimous[rows])


def read_judged_documents(path: Path) -> Verdicts:
    """Returns the documents of a file of JSON lines with ``text`` and ``label`` (1 good, 0 bad), maybe ``unanimous``.

    Raises:
        PermanentDataError: The file cannot be read or a row lacks a field.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        documents = [document_features(_with_text(row["text"].split("\n"))) for row in rows]
        dropped = np.array([int(row["label"]) == 0 for row in rows], dtype=np.bool_)
        unanimous = np.array([bool(row.get("unanimous", True)) for row in rows], dtype=np.bool_)
        return Verdicts(documents, dropped, unanimous)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentDataError(
            f"{path} cannot be read: {error!r}; expected JSON lines with 'text' and 'label' (1 keep, 0 drop)"
        ) from error


def train_document_head(
    judged: Verdicts, articles: Sequence[LabelledPage], boilerplate: Sequence[LabelledPage], seed: int
) -> tuple[DocumentHead, dict[str, Any]]:
    """Returns the head, trained on all documents, and its cross-validated figures on the judged ones.

    Args:
        judged: People's verdicts.
        articles: Labelled pages; some give two kept documents, their lines without the removed ones and the beginning.
        boilerplate: Labelled pages; some give a dropped document, their removed lines alone.
        seed: Seeds the folds and the choice of pages.
    """
    extra = _derived_documents(articles, boilerplate, seed)
    p = np.mean([_nested_predictions(judged, extra, _FOLDS, seed + i) for i in range(_REPEATS)], axis=0)
    threshold = next((t for t in _THRESHOLDS if _precision(p >= t, judged.dropped) >= MIN_PRECISION), _THRESHOLDS[-1])
    ridges = _best_ridges(judged, extra, np.random.default_rng(seed))
    head = _fit(judged, extra, ridges, threshold)
    dropped = p >= threshold
    return head, {
        "judged_documents": len(p),
        "auc": area_under_curve(p, judged.dropped),
        "drop_precision": _precision(dropped, judged.dropped),
        "drop_recall": float(dropped[judged.dropped].mean()),
        "folds": _FOLDS,
        "repeats": _REPEATS,
        "ridges": list(ridges),
    }


def cross_validate_documents(
    judged_file: Path, pages_file: Path, *, folds: int, seeds: int, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Returns the AUC of repeated, stratified, nested cross-validation: mean and sd over repeats.

    ``auc_unanimous``: the same predictions ranked among the documents that all judges agreed on.

    Args:
        judged_file: People's verdicts (see `read_judged_documents`).
        pages_file: Labelled pages that derived documents are made of; no judged document is among them.
        folds: Outer folds.
        seeds: Repeats, each with other folds.
        progress: Called with one line of text for each repeat.
    """
    judged, pages = read_judged_documents(judged_file), read_labelled_pages(pages_file)
    agreed, found = judged.unanimous, []
    for seed in range(seeds):
        extra = _derived_documents(pages, pages, seed)
        p = _nested_predictions(judged, extra, folds, seed)
        found.append((area_under_curve(p, judged.dropped), area_under_curve(p[agreed], judged.dropped[agreed])))
        progress(f"repeat {seed}: AUC {found[-1][0]:.4f}, where all judges agreed {found[-1][1]:.4f}")
    both = np.array(found)
    spread = {"auc_sd": round(float(both[:, 0].std(ddof=1)), 4)} if seeds > 1 else {}
    return {
        "auc": round(float(both[:, 0].mean()), 4),
        **spread,
        "auc_unanimous": round(float(both[:, 1].mean()), 4),
        "folds": folds,
        "repeats": seeds,
        "n_documents": len(judged.documents),
        "n_unanimous": int(agreed.sum()),
    }


def drop_share(head: DocumentHead, texts: Iterable[Sequence[str]]) -> float:
    """Returns the share of documents that the head drops, 0 for no documents.

    Args:
        head: The head.
        texts: Lines of each document, without blank ones.
    """
    drops = [head.p_drop(document_features(lines)) >= head.threshold for lines in texts]
    return sum(drops) / len(drops) if drops else 0.0


def page_lines(page: LabelledPage) -> list[str]:
    """Returns the lines of a page that hold text."""
    return _with_text(page.lines)


def wanted_lines(page: LabelledPage) -> list[str]:
    """Returns the lines with text that are not labelled for removal."""
    return _lines(page, removed=False)


def unwanted_lines(page: LabelledPage) -> list[str]:
    """Returns the lines with text that are labelled for removal."""
    return _lines(page, removed=True)


def beginning(lines: Sequence[str], n_words: int) -> list[str]:
    """Returns as many whole lines as it takes to hold ``n_words`` white-space words, all where there are fewer."""
    taken, count = [], 0
    for line in lines:
        if count >= n_words:
            break
        taken.append(line)
        count += len(line.split())
    return taken


def _with_text(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line and not line.isspace()]


def _lines(page: LabelledPage, *, removed: bool) -> list[str]:
    marks = (page.labels == REMOVE).tolist()
    return _with_text(line for line, gone in zip(page.lines, marks, strict=True) if gone == removed)


def _derived_documents(articles: Sequence[LabelledPage], boilerplate: Sequence[LabelledPage], seed: int) -> Verdicts:
    texts = [wanted_lines(page) for page in _some(articles, seed)]
    kept = [document_features(lines) for text in texts for lines in (text, beginning(text, EXCERPT_WORDS))]
    gone = [document_features(lines) for page in _some(boilerplate, seed) if (lines := unwanted_lines(page))]
    dropped = np.array([False] * len(kept) + [True] * len(gone), dtype=np.bool_)
    return Verdicts([*kept, *gone], dropped, np.ones(len(dropped), dtype=np.bool_))


def _some(pages: Sequence[LabelledPage], seed: int) -> list[LabelledPage]:
    return [pages[i] for i in np.random.default_rng(seed).permutation(len(pages))[:DERIVED_PAGES]]


def _fit(judged: Verdicts, extra: Verdicts, ridges: tuple[float, float], threshold: float = 0.5) -> DocumentHead:
    weight = np.concatenate([np.ones(len(judged.dropped)), np.full(len(extra.dropped), DERIVED_WEIGHT)])
    return fit_document_head(
        [*judged.documents, *extra.documents],
        np.concatenate([judged.dropped, extra.dropped]),
        penalty=ridges[0],
        word_penalty=ridges[1],
        threshold=threshold,
        weight=weight,
    )


def _nested_predictions(judged: Verdicts, extra: Verdicts, n_folds: int, seed: int) -> npt.NDArray[np.float64]:
    """Returns p(drop) of each judged document by a head that neither saw it nor was chosen by it."""
    rng = np.random.default_rng(seed)

    def fit(seen: Verdicts) -> DocumentHead:
        return _fit(seen, extra, _best_ridges(seen, extra, rng))

    return _out_of_fold(judged, n_folds, rng, fit)


def _best_ridges(judged: Verdicts, extra: Verdicts, rng: np.random.Generator) -> tuple[float, float]:
    seed = int(rng.integers(1 << 31))  # the same inner folds for all candidates

    def auc(ridges: tuple[float, float]) -> float:
        inner = np.random.default_rng(seed)
        p = _out_of_fold(judged, _INNER_FOLDS, inner, lambda seen: _fit(seen, extra, ridges))
        return area_under_curve(p, judged.dropped)

    return max(RIDGES, key=auc)


def _out_of_fold(
    judged: Verdicts, n_folds: int, rng: np.random.Generator, fit: Callable[[Verdicts], DocumentHead]
) -> npt.NDArray[np.float64]:
    """Returns p(drop) of each document by the head that was fitted without its fold; folds are stratified."""
    fold = np.zeros(len(judged.dropped), dtype=np.int64)
    for label in (True, False):
        rows = rng.permutation(np.flatnonzero(judged.dropped == label))
        fold[rows] = np.arange(len(rows)) % n_folds
    p = np.zeros(len(fold))
    for k in range(n_folds):
        head = fit(judged.some(np.flatnonzero(fold != k)))
        for row in np.flatnonzero(fold == k):
            p[row] = head.p_drop(judged.documents[row])
    return p


def _precision(dropped: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    return float(truth[dropped].mean()) if dropped.any() else 1.0
