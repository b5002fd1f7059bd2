"""The document stage: a refiner keeps or drops each document.

Source: arXiv 2409.17115, section 2 (``drop_doc``, ``keep_doc``). Documents without words are dropped without a call.
"""

import logging
from collections import Counter
from typing import Any

import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.prox.config import DocRefinementConfig
from corpusmill.prox.failures import error_reason, one_by_one
from corpusmill.prox.program_execution import DROPPED_MIN_WORDS
from corpusmill.prox.refiner import DocDecision, DocRefiner, load_doc_refiner
from corpusmill.schema import DOCUMENT_REFINEMENTS
from corpusmill.stage import StageOutput

log = logging.getLogger(__name__)


class DocRefinementStage:
    """Map stage: rows of ``document_refinements`` from cleaned documents.

    Args:
        config: Settings.
        refiner: A refiner to use in place of the one that the settings name.
    """

    name = "refine_documents"
    input_columns = ("crawl", "doc_id", "warc_file", "text")
    output_schema = DOCUMENT_REFINEMENTS.schema

    def __init__(self, config: DocRefinementConfig, refiner: DocRefiner | None = None) -> None:
        self.config = config
        self.refiner = refiner

    def setup(self) -> None:
        """Loads the refiner; a second call does nothing."""
        self._refiner()

    def _refiner(self) -> DocRefiner:
        if self.refiner is None:
            self.refiner = load_doc_refiner(self.config)
        return self.refiner

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed rows; a document that the refiner fails on is removed as ``error.<what>``.

        Metrics: ``calls``, ``prompt_tokens``, ``truncated``, ``unparsed``, ``failures``.
        """
        rows = batch.select(list(self.input_columns)).to_pylist()
        asked = [index for index, row in enumerate(rows) if (row["text"] or "").split()]
        refiner = self._refiner()
        decided = one_by_one(refiner.decide, [rows[index]["text"] for index in asked])
        answers = dict(zip(asked, decided, strict=True))
        metrics: Counter[str] = Counter(calls=len(asked), failures=0)
        out = [self._row(row, answers.get(index), refiner.model_id, metrics) for index, row in enumerate(rows)]
        return StageOutput(
            kept=rows_to_table([row for row in out if row["kept"]], self.output_schema),
            removed=rows_to_table([row for row in out if not row["kept"]], self.output_schema),
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _row(
        self, row: dict[str, Any], answer: DocDecision | Exception | None, model_id: str, metrics: Counter[str]
    ) -> dict[str, Any]:
        """Returns the output row; no answer means that the document has no words."""
        out: dict[str, Any] = {name: row[name] for name in ("crawl", "doc_id", "warc_file")} | {
            "kept": False,
            "reason": DROPPED_MIN_WORDS,
            "n_chars": len(row["text"] or ""),
            "n_prompt_tokens": 0,
            "truncated": False,
            "model_id": model_id,
        }
        if isinstance(answer, Exception):
            log.warning("document %s: the document refiner failed: %r", row["doc_id"], answer)
            metrics["failures"] += 1
            return out | {"reason": error_reason(answer)}
        if answer is None:
            return out
        metrics["prompt_tokens"] += answer.n_prompt_tokens
        metrics["truncated"] += answer.truncated
        metrics["unparsed"] += answer.reason in ("unparsed", "empty_output")
        return out | {
            "kept": answer.decision == "keep",
            "reason": answer.reason,
            "decision": answer.decision,
            "margin": answer.margin,
            "program": answer.output,
            "n_prompt_tokens": answer.n_prompt_tokens,
            "truncated": answer.truncated,
        }
