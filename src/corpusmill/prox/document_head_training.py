"""Trains the document head on people's verdicts, and chooses the threshold from cross-validated precision.

Two kinds of documents with labels derived from line labels stand beside the judged ones with a small weight:
main-content texts of articles (keep) and texts made of a page's boilerplate lines alone (drop). They carry the head
over to other languages than the judged documents' English and to texts that hold nothing but menus. The beginnings of
the articles are a third kind (keep): people judged short documents bad more often, and without these the head takes
shortness itself for a fault (it dropped 18 % of 50-word beginnings of good articles, 7 % with them; AUC .841 and .832).
"""

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.errors import PermanentDataError
from corpusmill.prox.document_evaluation import area_under_curve
from corpusmill.prox.document_head import DOCUMENT_FEATURES, DocumentHead, document_features, fit_document_head
from corpusmill.prox.labelled_pages import REMOVE, LabelledPage

PENALTY = 20.0
"""Ridge strength in documents; 10 to 30 give the same cross-validated AUC within .003."""
DERIVED_WEIGHT = 0.2
"""Weight of a document with a derived label beside 1 for a judged one."""
EXCERPT_WORDS = 100
"""White-space words of an article's beginning that stands as a short good document; whole lines are taken."""
MIN_PRECISION = 0.9
"""Of the judged documents that are dropped, at least this share must be bad; the lowest such threshold is taken."""
_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_FOLDS, _REPEATS = 10, 5


@dataclass(frozen=True)
class JudgedDocuments:
    """Documents that people judged.

    Attributes:
        features: float64 (documents, features).
        dropped: True where people called the document bad for pretraining.
    """

    features: npt.NDArray[np.float64]
    dropped: npt.NDArray[np.bool_]


def read_judged_documents(path: Path) -> JudgedDocuments:
    """Returns the documents of a file of JSON lines with ``text`` and ``label`` (1 good, 0 bad).

    Raises:
        PermanentDataError: The file cannot be read or a row lacks a field.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        features = np.stack([_features(row["text"].split("\n")) for row in rows])
        return JudgedDocuments(features, np.array([int(row["label"]) == 0 for row in rows]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentDataError(
            f"{path} cannot be read: {error!r}; expected JSON lines with 'text' and 'label' (1 keep, 0 drop)"
        ) from error


def train_document_head(
    judged: JudgedDocuments, articles: Sequence[LabelledPage], boilerplate: Sequence[LabelledPage], seed: int
) -> tuple[DocumentHead, dict[str, Any]]:
    """Returns the head, trained on all documents, and its cross-validated figures on the judged ones.

    Args:
        judged: People's verdicts.
        articles: Labelled pages; each gives two kept documents, its lines without the removed ones and their beginning.
        boilerplate: Labelled pages; each gives a dropped document, its removed lines alone.
        seed: Seeds the folds.
    """
    extra, extra_dropped = _derived_documents(articles, boilerplate)
    p = _cross_validated(judged, extra, extra_dropped, seed)
    threshold = next((t for t in _THRESHOLDS if _precision(p >= t, judged.dropped) >= MIN_PRECISION), _THRESHOLDS[-1])
    head = _fit(judged.features, judged.dropped, extra, extra_dropped, threshold)
    dropped = p >= threshold
    return head, {
        "judged_documents": len(p),
        "auc": area_under_curve(p, judged.dropped),
        "drop_precision": _precision(dropped, judged.dropped),
        "drop_recall": float(dropped[judged.dropped].mean()),
        "folds": _FOLDS,
        "repeats": _REPEATS,
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
    return [line for line in page.lines if line and not line.isspace()]


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


def _features(lines: Sequence[str]) -> npt.NDArray[np.float64]:
    return document_features([line for line in lines if line and not line.isspace()])


def _lines(page: LabelledPage, *, removed: bool) -> list[str]:
    marks = (page.labels == REMOVE).tolist()
    return [
        line for line, gone in zip(page.lines, marks, strict=True) if gone == removed and line and not line.isspace()
    ]


def _derived_documents(
    articles: Sequence[LabelledPage], boilerplate: Sequence[LabelledPage]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    texts = [wanted_lines(page) for page in articles]
    kept = [document_features(lines) for text in texts for lines in (text, beginning(text, EXCERPT_WORDS))]
    dropped = [document_features(lines) for page in boilerplate if (lines := unwanted_lines(page))]
    rows = np.array([*kept, *dropped]).reshape(-1, len(DOCUMENT_FEATURES))
    return rows, np.array([False] * len(kept) + [True] * len(dropped), dtype=np.bool_)


def _fit(
    features: npt.NDArray[np.float64],
    dropped: npt.NDArray[np.bool_],
    extra: npt.NDArray[np.float64],
    extra_dropped: npt.NDArray[np.bool_],
    threshold: float,
) -> DocumentHead:
    weight = np.concatenate([np.ones(len(dropped)), np.full(len(extra_dropped), DERIVED_WEIGHT)])
    return fit_document_head(
        np.concatenate([features, extra]),
        np.concatenate([dropped, extra_dropped]),
        penalty=PENALTY,
        threshold=threshold,
        weight=weight,
    )


def _cross_validated(
    judged: JudgedDocuments,
    extra: npt.NDArray[np.float64],
    extra_dropped: npt.NDArray[np.bool_],
    seed: int,
) -> npt.NDArray[np.float64]:
    """Returns p(drop) of each judged document by heads that did not see it, averaged over repeats."""
    rng, n = np.random.default_rng(seed), len(judged.dropped)
    total = np.zeros(n)
    for _ in range(_REPEATS):
        fold = rng.permutation(n) % min(_FOLDS, n)
        for k in range(min(_FOLDS, n)):
            seen = fold != k
            head = _fit(judged.features[seen], judged.dropped[seen], extra, extra_dropped, 0.5)
            for i in np.flatnonzero(~seen):
                total[i] += head.p_drop(judged.features[i])
    return total / _REPEATS


def _precision(dropped: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    return float(truth[dropped].mean()) if dropped.any() else 1.0
