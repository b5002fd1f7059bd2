"""Validation of a program-writing model: real decoding of a bounded dev sample, through parser and executor."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.prox.finetuning_examples import Window
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE, LabelledPage
from corpusmill.prox.line_scores import micro_scores
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_model_folder import chunk_config, doc_config
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.refiner import ChunkRefiner, DocRefiner, load_chunk_refiner, load_doc_refiner
from corpusmill.prox.training_examples import DocumentExample


@dataclass(frozen=True)
class Score:
    """How good a model is on the dev sample.

    Attributes:
        f1: What checkpoints are chosen by, in [0, 1].
        measures: All measures, for the record.
    """

    f1: float
    measures: dict[str, Any]


@dataclass(frozen=True)
class DocumentValidation:
    """Decides the documents of a dev sample; F1 counts kept documents as positive, as the paper does."""

    examples: Sequence[DocumentExample]

    def score_folder(self, folder: Path, device: str, dtype: str, batch_tokens: int) -> Score:
        """Returns the score of a stored model."""
        config = doc_config(folder, device=device, dtype=dtype, batch_tokens=batch_tokens)
        return self.score(load_doc_refiner(config))

    def score(self, refiner: DocRefiner) -> Score:
        """Returns F1, precision and recall of keeping, and the shares that are right and that are no program."""
        decisions = refiner.decide([example.text for example in self.examples])
        truth = np.array([example.decision == "keep" for example in self.examples])
        kept = np.array([decision.decision == "keep" for decision in decisions])
        hits = int((truth & kept).sum())
        precision, recall = hits / max(1, int(kept.sum())), hits / max(1, int(truth.sum()))
        f1 = 2 * hits / max(1, int(kept.sum() + truth.sum()))
        unparsed = sum(decision.reason in ("unparsed", "empty_output") for decision in decisions)
        measures = {
            "f1": f1,
            "precision": precision,
            "recall": recall,
            "accuracy": float((truth == kept).mean()),
            "validity": 1 - unparsed / len(decisions),
            "n_documents": len(decisions),
        }
        return Score(f1, measures)


@dataclass(frozen=True)
class ChunkValidation:
    """Decodes the windows of a dev sample and executes the programs in strict mode.

    A checkpoint's score is the mean of two micro F1: of removed lines (the paper's, blind where most lines go) and of
    kept lines (blind where few go). Unsure lines are left out, `normalize` is not scored, as in the paper.
    """

    windows: Sequence[Window]

    def score_folder(self, folder: Path, device: str, dtype: str, batch_tokens: int) -> Score:
        """Returns the score of a stored model."""
        config = chunk_config(folder, device=device, dtype=dtype, batch_tokens=batch_tokens)
        return self.score(load_chunk_refiner(config))

    def score(self, refiner: ChunkRefiner) -> Score:
        """Returns line scores, the share of valid programs and of programs that met the token limit."""
        outputs = refiner.write_programs([window.chunk for window in self.windows])
        pages = [_page(window) for window in self.windows]
        removed = [
            removed_lines(window, output.output, output.reason)
            for window, output in zip(self.windows, outputs, strict=True)
        ]
        scores = micro_scores(pages, removed)
        measures = {
            "keep_f1": scores.keep_f1,
            "char_f1": scores.char_f1,
            "remove_f1": scores.remove_f1,
            "validity": sum(is_valid(output.output) for output in outputs) / len(outputs),
            "truncated": sum(output.truncated for output in outputs) / len(outputs),
            "n_windows": len(outputs),
        }
        return Score((scores.keep_f1 + scores.remove_f1) / 2, measures)


Validation = DocumentValidation | ChunkValidation


def is_valid(output: str) -> bool:
    """Returns whether a program is whole and without a malformed or unknown call."""
    program = parse_program(output, "strict")
    met = program.diagnostics
    return bool(program.ops) and met.n_errors == 0 and met.n_ignored == 0 and not met.truncated


def removed_lines(window: Window, output: str, reason: str) -> npt.NDArray[np.bool_]:
    """Returns bool (lines,): which lines of a window are gone after strict execution of a program."""
    chunk, n = window.chunk, len(window.chunk.lines)
    # programs name the document's lines; the empty ones in front stand for what the window does not show
    text = "\n" * chunk.first_line + "\n".join(chunk.lines)
    program = ChunkProgram(chunk.first_line, chunk.last_line, output, reason)
    result = execute(text, [program], ExecutionSettings("strict", min_words=0, max_removed=1.0))
    removed = np.zeros(n, dtype=np.bool_)
    for operation in result.operations:
        if operation.op in ("remove_lines", "remove_all") and operation.first_line is not None:
            last = operation.last_line if operation.last_line is not None else operation.first_line
            removed[operation.first_line - chunk.first_line : last + 1 - chunk.first_line] = True
    return removed


def _page(window: Window) -> LabelledPage:
    labels = np.where(window.removed, REMOVE, KEEP).astype(np.int8)
    labels[window.unsure] = UNSURE
    return LabelledPage("", "", "", window.chunk.lines, labels)
