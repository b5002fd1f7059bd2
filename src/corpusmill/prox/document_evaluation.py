"""Scores of a document refiner: F1 of keeping, area under the ROC curve, against verdicts on whole texts.

Verdicts come from people (JSON lines with ``text`` and ``label``, 1 keep, 0 drop) or from a teacher (document examples
of `corpusmill.prox.training_examples`). Keep is the positive class, as in the paper (arXiv 2409.17115, section 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.prox.json_lines import read_json_lines
from corpusmill.prox.refiner import DocDecision

JUDGED_ROW = "an object with 'text' and 'label' (1 keep, 0 drop) or 'decision' ('keep', 'drop')"
"""What a line of a file of judged documents is."""


@dataclass(frozen=True)
class VerdictDocument:
    """A text and whether it should stay."""

    text: str
    kept: bool


def holds_documents(path: Path) -> bool:
    """Returns whether a file holds whole texts with verdicts, by its first row.

    Raises:
        PermanentDataError: The file cannot be read as JSON lines.
    """
    _, row = next(read_json_lines(path, JUDGED_ROW), (0, None))
    return isinstance(row, dict) and "text" in row and ("label" in row or "decision" in row)


def read_documents(path: Path) -> list[VerdictDocument]:
    """Returns the texts of a file with their verdicts.

    Raises:
        PermanentDataError: The file cannot be read, holds no row, or a row has no text or no verdict.
    """
    documents = []
    for number, row in read_json_lines(path, JUDGED_ROW):
        try:
            documents.append(VerdictDocument(str(row["text"]), _kept(row)))
        except (KeyError, TypeError, ValueError) as error:
            raise PermanentDataError(f"{path} line {number}: {error!r}; expected {JUDGED_ROW}") from error
    if not documents:
        raise PermanentDataError(f"{path} holds no document; expected at least one JSON object a line")
    return documents


def evaluate_documents(documents: Sequence[VerdictDocument], decisions: Sequence[DocDecision]) -> dict[str, Any]:
    """Returns the scores of decisions: ``f1``, ``precision`` and ``recall`` of keep, ``accuracy``, ``auc``.

    ``auc`` ranks by the margin p(drop); a decision without one counts as 0 or 1. It is None where all verdicts are the
    same. ``keep_all_f1`` is the F1 of keeping every text, ``keep_share`` what the refiner keeps.
    """
    truth = np.array([document.kept for document in documents], dtype=np.bool_)
    kept = np.array([decision.decision == "keep" for decision in decisions], dtype=np.bool_)
    drop_scores = np.array([_drop_score(decision) for decision in decisions])
    both = truth.any() and not truth.all()
    return {
        **_keep_scores(kept, truth),
        "accuracy": float((kept == truth).mean()),
        "auc": area_under_curve(drop_scores, ~truth) if both else None,
        "keep_share": float(kept.mean()),
        "keep_all_f1": _keep_scores(np.ones_like(kept), truth)["f1"],
        "n_documents": len(documents),
    }


def document_agreement(
    documents: Sequence[VerdictDocument], decisions: Sequence[DocDecision], teacher: Sequence[VerdictDocument]
) -> dict[str, Any]:
    """Returns ``accuracy`` and ``f1`` of decisions against a teacher's verdicts on the same texts.

    Raises:
        ConfigError: The teacher judged none of the texts.
    """
    taught = {document.text: document.kept for document in teacher}
    common = [i for i, document in enumerate(documents) if document.text in taught]
    if not common:
        raise ConfigError(
            f"teacher: none of its {len(teacher)} texts is one of the {len(documents)} measured texts; expected "
            "verdicts on the same texts"
        )
    truth = np.array([taught[documents[i].text] for i in common], dtype=np.bool_)
    kept = np.array([decisions[i].decision == "keep" for i in common], dtype=np.bool_)
    return {
        "accuracy": float((kept == truth).mean()),
        "f1": _keep_scores(kept, truth)["f1"],
        "n_documents": len(common),
    }


def area_under_curve(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Returns the area under the ROC curve: the chance that a positive scores above a negative, ties counted half."""
    ordered = np.sort(score[~positive])
    wins = np.searchsorted(ordered, score[positive], "left") + np.searchsorted(ordered, score[positive], "right")
    return float(wins.mean() / (2 * len(ordered)))


def _keep_scores(kept: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    hits, n_kept, n_true = float((kept & truth).sum()), float(kept.sum()), float(truth.sum())
    return {
        "f1": 2 * hits / (n_kept + n_true) if n_kept + n_true else 1.0,
        "precision": hits / n_kept if n_kept else 1.0,
        "recall": hits / n_true if n_true else 1.0,
    }


def _drop_score(decision: DocDecision) -> float:
    return decision.margin if decision.margin is not None else float(decision.decision == "drop")


def _kept(row: dict[str, Any]) -> bool:
    if "decision" in row:
        if row["decision"] not in ("keep", "drop"):
            raise ValueError(f"decision={row['decision']!r}")
        return bool(row["decision"] == "keep")
    if (label := int(row["label"])) not in (0, 1):
        raise ValueError(f"label={row['label']!r}")
    return label == 1
