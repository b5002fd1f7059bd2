"""The chunk stage: a refiner writes editing programs for windows of lines, and the executor applies them.

Source: arXiv 2409.17115, section 2 (``remove_lines``, ``normalize``, ``keep_chunk``). Outputs are stored as emitted, so
that they can be executed again without a model.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from corpusmill.batches import replace_surrogates, rows_to_table
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.failures import answer_each, error_reason, is_error
from corpusmill.prox.program_execution import (
    EDITED,
    EMPTY_OUTPUT,
    LOOPED,
    REJECTED_ERRORS,
    UNPARSED,
    ChunkProgram,
    ExecutionResult,
    ExecutionSettings,
    execute,
)
from corpusmill.prox.refiner import TOO_LONG_PROMPT, ChunkOutput, ChunkRefiner
from corpusmill.prox.stored_outputs import NO_REUSE, Reuse, ReusingChunkRefiner, WrittenProgram
from corpusmill.schema import CHUNK_REFINEMENTS, text_digest
from corpusmill.stage import StageOutput

log = logging.getLogger(__name__)

FAILED_CHUNKS = frozenset({EMPTY_OUTPUT, UNPARSED, REJECTED_ERRORS, TOO_LONG_PROMPT})
"""Chunk reasons that count as failures of the refiner; published rates are 0.04 to 0.36 %."""

NOT_SENT = frozenset({TOO_LONG_PROMPT})
"""Notes of chunks that the model was not asked about; every other note says something of an output that is executed."""

Written = Sequence[WrittenProgram]


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
        reuse: Where existing outputs are looked for; the model is loaded when the first document is nowhere.
    """

    name = "refine_chunks"
    input_columns = ("crawl", "doc_id", "warc_file", "text")
    output_schema = CHUNK_REFINEMENTS.schema

    def __init__(
        self, config: ChunkRefinementConfig, refiner: ChunkRefiner | None = None, reuse: Reuse = NO_REUSE
    ) -> None:
        self.config = config
        self.gates = execution_settings(config)
        self.refiner = ReusingChunkRefiner(config, refiner, reuse)

    def setup(self) -> None:
        """Loads the refiner where it is certainly needed; a second call does nothing."""
        self.refiner.setup()

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed rows; a document that the refiner fails on is removed as ``error.<what>``.

        Metrics: ``calls``, ``chunks``, ``chunks_untouched``, ``chunks_failed``, ``chunks_truncated``,
        ``chunks_looped``, ``prompt_tokens``, ``failures``, ``normalizes``, ``normalize_misses``,
        ``normalize_tiny_sources``, ``words_before``, ``words_removed``, ``characters_removed.<operation>`` over edited
        documents, ``surrogates_replaced``, and where the outputs came from: ``model_calls``, ``reused_stored``,
        ``reused_cache``.
        """
        self.setup()  # a model that cannot be loaded is no fault of a document
        rows = batch.select(list(self.input_columns)).to_pylist()
        written = answer_each(self._write, [row["text"] or "" for row in rows])
        metrics: Counter[str] = Counter(failures=0)
        out = [self._row(row, answer, metrics) for row, answer in zip(rows, written, strict=True)]
        metrics.update(self.refiner.take_counts())
        return StageOutput(
            kept=rows_to_table([row for row in out if row["kept"]], self.output_schema),
            removed=rows_to_table([row for row in out if not row["kept"]], self.output_schema),
            metrics={name: float(value) for name, value in metrics.items()},
        )

    def _write(self, texts: Sequence[str]) -> list[Written]:
        """Returns the programs of each text; a text without words has none."""
        chunks = [self.refiner.split(text) if text.split() else [] for text in texts]
        flat = [chunk for document in chunks for chunk in document]
        rest = iter(self.refiner.write_programs(flat) if flat else [])
        return [[WrittenProgram(c.first_line, c.last_line, next(rest)) for c in document] for document in chunks]

    def _row(self, row: dict[str, Any], written: Written | Exception, metrics: Counter[str]) -> dict[str, Any]:
        text = row["text"] or ""
        out: dict[str, Any] = {name: row[name] for name in ("crawl", "doc_id", "warc_file")} | {
            "kept": False,
            "mode": self.gates.mode,
            "n_chars_before": len(text),
            "model_id": self.refiner.model_id,
            "output_key": self.refiner.fingerprint,
            "text_digest": text_digest(text),
        }
        failure = _failure(written)
        if failure or isinstance(written, Exception):
            what = written if isinstance(written, Exception) else failure
            log.warning("document %s: the chunk refiner failed: %r", row["doc_id"], what)
            metrics["failures"] += 1
            counts = ("n_chunks", "n_errors", "n_normalize_misses", "n_truncated", "n_chars_after")
            return out | dict.fromkeys(counts, 0) | {"reason": failure}
        clean = [_without_surrogates(program, metrics) for program in written]
        result = execute_written(text, clean, self.gates)
        _count(metrics, result, clean)
        return out | executed_columns(clean, result)


def _failure(written: Written | Exception) -> str:
    """Returns ``error.<what>`` where the refiner failed on a document or on a chunk of it, else ``""``.

    A document with one chunk that nothing was written for would be published with that part as it was.
    """
    if isinstance(written, Exception):
        return error_reason(written)
    return next((program.output.reason for program in written if is_error(program.output.reason)), "")


def execute_written(text: str, written: Written, gates: ExecutionSettings) -> ExecutionResult:
    """Returns a document after what a refiner wrote for it, now or in an earlier run."""
    return execute(text, [_as_program(program) for program in written], gates)


def executed_columns(written: Written, result: ExecutionResult) -> dict[str, Any]:
    """Returns the columns of ``chunk_refinements`` that follow from programs, text and execution policy alone."""
    return {
        "kept": not result.dropped,
        "reason": result.reason,
        "n_chunks": len(written),
        "programs": _program_rows(written, result),
        "operations": _operation_rows(result),
        "n_errors": result.n_errors,
        "n_normalize_misses": result.n_normalize_misses,
        "n_truncated": _n_truncated(result, written),
        "n_chars_after": len(result.text),
        "text": None if result.dropped else result.text,
    }


def written_programs(rows: Sequence[dict[str, Any]]) -> tuple[WrittenProgram, ...]:
    """Returns what a refiner wrote from the column ``programs`` of a document."""
    return tuple(WrittenProgram(row["first_line"], row["last_line"], _stored_output(row)) for row in rows)


def _stored_output(row: dict[str, Any]) -> ChunkOutput:
    note = row["note"]
    if note is None:  # a row of a version that stored no note: the reason tells whether the model was asked
        note = row["reason"] if row["reason"] in NOT_SENT else ""
    return ChunkOutput(row["output"], row["n_prompt_tokens"] or 0, bool(row["truncated"]), note)


def _as_program(program: WrittenProgram) -> ChunkProgram:
    not_sent = program.output.reason in NOT_SENT
    reason, output = (program.output.reason, "") if not_sent else ("", program.output.output)
    return ChunkProgram(program.first_line, program.last_line, output, reason)


def _without_surrogates(program: WrittenProgram, metrics: Counter[str]) -> WrittenProgram:
    text, n_replaced = replace_surrogates(program.output.output)
    metrics["surrogates_replaced"] += n_replaced
    return replace(program, output=replace(program.output, output=text)) if n_replaced else program


def _n_truncated(result: ExecutionResult, written: Written) -> int:
    """Returns the chunks whose output met the token limit or ends in an unfinished call."""
    return sum(
        chunk.truncated or program.output.truncated for chunk, program in zip(result.chunks, written, strict=True)
    )


def _count(metrics: Counter[str], result: ExecutionResult, written: Written) -> None:
    reasons = Counter(chunk.reason for chunk in result.chunks)
    metrics["calls"] += result.n_calls
    metrics["chunks"] += len(result.chunks)
    metrics["chunks_untouched"] += len(result.chunks) - reasons[EDITED]
    metrics["chunks_failed"] += sum(reasons[reason] for reason in FAILED_CHUNKS)
    metrics["chunks_truncated"] += _n_truncated(result, written)
    metrics["chunks_looped"] += sum(program.output.reason == LOOPED for program in written)
    metrics["prompt_tokens"] += sum(program.output.n_prompt_tokens for program in written)
    metrics["normalizes"] += result.n_normalizes
    metrics["normalize_misses"] += result.n_normalize_misses
    metrics["normalize_tiny_sources"] += result.n_tiny_sources
    metrics["words_before"] += result.n_words_before
    if result.reason == EDITED:
        metrics["words_removed"] += result.n_words_before - result.n_words_after
        for operation in result.operations:
            metrics[f"characters_removed.{operation.op}"] += operation.n_characters


def _program_rows(written: Written, result: ExecutionResult) -> list[dict[str, Any]]:
    return [
        {
            "first_line": program.first_line,
            "last_line": program.last_line,
            "output": program.output.output,
            "reason": chunk.reason,
            "n_errors": chunk.n_errors,
            "truncated": program.output.truncated,
            "note": program.output.reason,
            "n_prompt_tokens": program.output.n_prompt_tokens,
        }
        for program, chunk in zip(written, result.chunks, strict=True)
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
