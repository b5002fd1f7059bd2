"""The document stage: a refiner keeps or drops each document.

Source: arXiv 2409.17115, section 2 (``drop_doc``, ``keep_doc``). Documents without words are dropped without a call.
What the model said and its margin are stored as they were; the decision is a function of them and of the policy, so
that another threshold needs no model.
"""

import logging
from collections import Counter
from typing import Any

import pyarrow as pa

from corpusmill.batches import replace_surrogates, rows_to_table
from corpusmill.errors import ConfigError
from corpusmill.prox.config import DocRefinementConfig
from corpusmill.prox.failures import answer_each, error_reason
from corpusmill.prox.program_execution import (
    DROPPED_MIN_WORDS,
    DROPPED_MODEL,
    EMPTY_OUTPUT,
    KEPT,
    UNPARSED,
    decide_document,
)
from corpusmill.prox.refiner import DocDecision, DocRefiner
from corpusmill.prox.stored_outputs import NO_REUSE, Reuse, ReusingDocRefiner
from corpusmill.schema import DOCUMENT_REFINEMENTS, text_digest
from corpusmill.stage import StageOutput

log = logging.getLogger(__name__)

DECIDED = ("keep", "drop")
"""Beginnings of outputs over which a threshold decides: the two first tokens that a margin compares."""


def decide(output: str, margin: float | None, config: DocRefinementConfig) -> tuple[bool, str]:
    """Returns whether a document is kept, and the reason code, from what the model said.

    Args:
        output: Program text as emitted.
        margin: p(drop) / (p(drop) + p(keep)), in [0, 1]; None where the model gives none.
        config: Its ``threshold`` and mode decide. Without a threshold, and over an output that begins with neither of
            the two words, the output decides.

    Raises:
        ConfigError: There is a threshold, and no margin to hold against it.
    """
    if config.threshold is not None and output.startswith(DECIDED):
        if margin is None:
            raise ConfigError(
                f"threshold={config.threshold!r} needs the odds of drop against keep, and model={config.model!r} gives "
                "none; leave threshold out of refine_documents"
            )
        return (False, DROPPED_MODEL) if margin >= config.threshold else (True, KEPT)
    return decide_document(output, config.execution_mode)


class DocRefinementStage:
    """Map stage: rows of ``document_refinements`` from cleaned documents.

    Args:
        config: Settings.
        refiner: A refiner to use in place of the one that the settings name.
        reuse: Where existing outputs are looked for; the model is loaded when the first document is nowhere.
    """

    name = "refine_documents"
    input_columns = ("crawl", "doc_id", "warc_file", "text")
    output_schema = DOCUMENT_REFINEMENTS.schema

    def __init__(self, config: DocRefinementConfig, refiner: DocRefiner | None = None, reuse: Reuse = NO_REUSE) -> None:
        self.config = config
        self.refiner = ReusingDocRefiner(config, refiner, reuse)

    def setup(self) -> None:
        """Loads the refiner where it is certainly needed; a second call does nothing."""
        self.refiner.setup()

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed rows; a document that the refiner fails on is removed as ``error.<what>``.

        Metrics: ``calls``, ``prompt_tokens``, ``truncated``, ``unparsed``, ``failures``, ``surrogates_replaced``, and
        where the outputs came from: ``model_calls``, ``reused_stored``, ``reused_cache``.
        """
        self.setup()
        rows = batch.select(list(self.input_columns)).to_pylist()
        asked = [index for index, row in enumerate(rows) if (row["text"] or "").split()]
        decided = answer_each(self.refiner.decide, [rows[index]["text"] for index in asked])
        answers = dict(zip(asked, decided, strict=True))
        metrics: Counter[str] = Counter(calls=len(asked), failures=0)
        out = [self._row(row, answers.get(index), metrics) for index, row in enumerate(rows)]
        metrics.update(self.refiner.take_counts())
        return StageOutput(
            kept=rows_to_table([row for row in out if row["kept"]], self.output_schema),
            removed=rows_to_table([row for row in out if not row["kept"]], self.output_schema),
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _row(
        self, row: dict[str, Any], answer: DocDecision | Exception | None, metrics: Counter[str]
    ) -> dict[str, Any]:
        """Returns the output row; no answer means that the document has no words."""
        out: dict[str, Any] = {name: row[name] for name in ("crawl", "doc_id", "warc_file")} | {
            "kept": False,
            "reason": DROPPED_MIN_WORDS,
            "n_chars": len(row["text"] or ""),
            "n_prompt_tokens": 0,
            "truncated": False,
            "model_id": self.refiner.model_id,
            "output_key": self.refiner.fingerprint,
            "text_digest": text_digest(row["text"] or ""),
        }
        if isinstance(answer, Exception):
            log.warning("document %s: the document refiner failed: %r", row["doc_id"], answer)
            metrics["failures"] += 1
            return out | {"reason": error_reason(answer)}
        if answer is None:
            return out
        program, n_replaced = replace_surrogates(answer.output)
        kept, reason = decide(program, answer.margin, self.config)
        metrics["prompt_tokens"] += answer.n_prompt_tokens
        metrics["truncated"] += answer.truncated
        metrics["unparsed"] += reason in (UNPARSED, EMPTY_OUTPUT)
        metrics["surrogates_replaced"] += n_replaced
        return out | {
            "kept": kept,
            "reason": reason,
            "decision": "keep" if kept else "drop",
            "margin": answer.margin,
            "program": program,
            "n_prompt_tokens": answer.n_prompt_tokens,
            "truncated": answer.truncated,
        }
