"""The chunk stage: a refiner writes editing programs for windows of lines, and the executor applies them.

Source: arXiv 2409.17115, section 2 (``remove_lines``, ``normalize``, ``keep_chunk``). Outputs are stored as emitted, so
that they can be executed again without a model.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from corpusmill.batches import replace_surrogates, rows_to_table
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.failures import error_reason, one_by_one
from corpusmill.prox.program_execution import (
    EDITED,
    EMPTY_OUTPUT,
    REJECTED_ERRORS,
    UNPARSED,
    ChunkProgram,
    ExecutionResult,
    ExecutionSettings,
    execute,
)
from corpusmill.prox.refiner import TOO_LONG_PROMPT, ChunkOutput, ChunkRefiner, load_chunk_refiner
from corpusmill.schema import CHUNK_REFINEMENTS
from corpusmill.stage import StageOutput

log = logging.getLogger(__name__)

FAILED_CHUNKS = frozenset({EMPTY_OUTPUT, UNPARSED, REJECTED_ERRORS, TOO_LONG_PROMPT})
"""Chunk reasons that count as failures of the refiner; published rates are 0.04 to 0.36 %."""

Written = list[tuple[Chunk, ChunkOutput]]


def execution_settings(config: ChunkRefinementConfig) -> ExecutionSettings:
    """Returns the executor's gates of a chunk stage."""
    return ExecutionSettings(
        mode=config.execution_mode,
        min_words=config.min_words,
        max_removed=config.max_removed,
        min_kept=config.min_kept,
        max_errors=config.max_errors,
    )


class ChunkRefinementStage:
    """Map stage: rows of ``chunk_refinements`` from the documents that the document stage kept.

    Args:
        config: Settings.
        refiner: A refiner to use in place of the one that the settings name.
    """

    name = "refine_chunks"
    input_columns = ("crawl", "doc_id", "warc_file", "text")
    output_schema = CHUNK_REFINEMENTS.schema

    def __init__(self, config: ChunkRefinementConfig, refiner: ChunkRefiner | None = None) -> None:
        self.config = config
        self.gates = execution_settings(config)
        self.refiner = refiner

    def setup(self) -> None:
        """Loads the refiner; a second call does nothing."""
        self._refiner()

    def _refiner(self) -> ChunkRefiner:
        if self.refiner is None:
            self.refiner = load_chunk_refiner(self.config)
        return self.refiner

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed rows; a document that the refiner fails on is removed as ``error.<what>``.

        Metrics: ``calls``, ``chunks``, ``chunks_untouched``, ``chunks_failed``, ``chunks_truncated``,
        ``prompt_tokens``, ``failures``, ``normalize_misses``, ``normalize_tiny_sources``, ``words_removed``, and
        ``characters_removed.<operation>`` over edited documents.
        """
        self.setup()  # a model that cannot be loaded is no fault of a document
        rows = batch.select(list(self.input_columns)).to_pylist()
        written = one_by_one(self._write, [row["text"] or "" for row in rows])
        metrics: Counter[str] = Counter(failures=0)
        out = [self._row(row, answer, metrics) for row, answer in zip(rows, written, strict=True)]
        return StageOutput(
            kept=rows_to_table([row for row in out if row["kept"]], self.output_schema),
            removed=rows_to_table([row for row in out if not row["kept"]], self.output_schema),
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _write(self, texts: Sequence[str]) -> list[Written]:
        """Returns the chunks of each text with their outputs; a text without words has no chunk."""
        refiner = self._refiner()
        chunks = [refiner.split(text) if text.split() else [] for text in texts]
        flat = [chunk for document in chunks for chunk in document]
        outputs = refiner.write_programs(flat) if flat else []
        if len(outputs) != len(flat):
            raise RuntimeError(f"the refiner gave {len(outputs)} outputs for {len(flat)} chunks; expected one each")
        rest = iter(outputs)
        return [[(chunk, next(rest)) for chunk in document] for document in chunks]

    def _row(self, row: dict[str, Any], written: Written | Exception, metrics: Counter[str]) -> dict[str, Any]:
        text = row["text"] or ""
        out: dict[str, Any] = {name: row[name] for name in ("crawl", "doc_id", "warc_file")} | {
            "kept": False,
            "mode": self.gates.mode,
            "n_chars_before": len(text),
            "model_id": self._refiner().model_id,
        }
        if isinstance(written, Exception):
            log.warning("document %s: the chunk refiner failed: %r", row["doc_id"], written)
            metrics["failures"] += 1
            counts = ("n_chunks", "n_errors", "n_normalize_misses", "n_truncated", "n_chars_after")
            return out | dict.fromkeys(counts, 0) | {"reason": error_reason(written)}
        programs = [
            ChunkProgram(chunk.first_line, chunk.last_line, replace_surrogates(output.output)[0], output.reason)
            for chunk, output in written
        ]
        result = execute(text, programs, self.gates)
        cut = [output.truncated for _, output in written]
        _count(metrics, result, cut, sum(output.n_prompt_tokens for _, output in written))
        return out | {
            "kept": not result.dropped,
            "reason": result.reason,
            "n_chunks": len(programs),
            "programs": _program_rows(programs, result),
            "operations": _operation_rows(result),
            "n_errors": result.n_errors,
            "n_normalize_misses": result.n_normalize_misses,
            "n_truncated": _n_truncated(result, cut),
            "n_chars_after": len(result.text),
            "text": None if result.dropped else result.text,
        }


def _n_truncated(result: ExecutionResult, cut: list[bool]) -> int:
    """Returns the chunks whose output met the token limit or ends in an unfinished call."""
    return sum(chunk.truncated or at_limit for chunk, at_limit in zip(result.chunks, cut, strict=True))


def _count(metrics: Counter[str], result: ExecutionResult, cut: list[bool], n_prompt_tokens: int) -> None:
    reasons = Counter(chunk.reason for chunk in result.chunks)
    metrics["calls"] += result.n_calls
    metrics["chunks"] += len(result.chunks)
    metrics["chunks_untouched"] += len(result.chunks) - reasons[EDITED]
    metrics["chunks_failed"] += sum(reasons[reason] for reason in FAILED_CHUNKS)
    metrics["chunks_truncated"] += _n_truncated(result, cut)
    metrics["prompt_tokens"] += n_prompt_tokens
    metrics["normalize_misses"] += result.n_normalize_misses
    metrics["normalize_tiny_sources"] += result.n_tiny_sources
    if result.reason == EDITED:
        metrics["words_removed"] += result.n_words_before - result.n_words_after
        for operation in result.operations:
            metrics[f"characters_removed.{operation.op}"] += operation.n_characters


def _program_rows(programs: list[ChunkProgram], result: ExecutionResult) -> list[dict[str, Any]]:
    return [
        {
            "first_line": program.first_line,
            "last_line": program.last_line,
            "output": program.output,
            "reason": chunk.reason,
            "n_errors": chunk.n_errors,
        }
        for program, chunk in zip(programs, result.chunks, strict=True)
    ]


def _operation_rows(result: ExecutionResult) -> list[dict[str, Any]]:
    return [
        {
            "chunk": operation.chunk,
            "op": operation.op,
            "first_line": operation.first_line,
            "last_line": operation.last_line,
            "source": operation.source,
            "target": operation.target,
            "n_applied": operation.n_applied,
        }
        for operation in result.operations
    ]
