"""Measures a chunk refiner on labelled pages, through the same parser and executor that the product runs.

Every page becomes a text, the refiner splits it and writes programs, strict mode executes them, and the lines that went
are compared with the labels. So a wrong line number or a malformed call costs quality here as it does in production.
Time is measured around splitting and writing; reading the file and loading the model are not counted.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.labelled_pages import LabelledPage, read_labelled_pages
from corpusmill.prox.line_scores import LineScores, macro_scores, micro_scores
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.refiner import ChunkRefiner, load_chunk_refiner

JUDGE_TIER = "human"
"""Tier whose scores stand at the top level: labels made by people or by a parser written for the site."""


@dataclass(frozen=True)
class PageResult:
    """What a refiner did to one page.

    Attributes:
        removed: Which lines went after execution.
        n_programs: Windows that the refiner was asked for.
        n_valid: Programs that are whole and without a malformed or unknown call.
    """

    removed: npt.NDArray[np.bool_]
    n_programs: int
    n_valid: int


def evaluate(model_dir: Path, file: Path) -> dict[str, Any]:
    """Returns the scores of a model on a labelled file, as `corpusmill evaluate-refiner` prints them.

    ``keep_f1``, ``char_f1``, ``remove_f1``: micro over pages of tier "human" (over all pages where the file has none);
    ``macro``: the same, mean over pages; ``all``: micro over all tiers, with its own ``macro``. ``validity``: share of
    programs that parse whole and without error; ``validity_free``: the same without a grammar. The labeller writes its
    programs from labels, so both are measured on the same programs. ``docs_per_s``: pages a second, features included.

    Args:
        model_dir: Model folder: a labeller's, or a causal language model's (then transformers is needed).
        file: JSON lines with ``lines``, ``remove``, ``unsure`` and ``tier``.

    Raises:
        ModelError: The model cannot be loaded.
        PermanentDataError: The file is not in the format.
    """
    return evaluate_pages(load_chunk_refiner(_config_for(model_dir)), read_labelled_pages(file))


def _config_for(model_dir: Path) -> ChunkRefinementConfig:
    try:
        kind = json.loads((model_dir / "config.json").read_text(encoding="utf-8")).get("format", "")
    except (OSError, ValueError, AttributeError):
        kind = ""  # the loader says what is missing
    labeller = str(kind).startswith("corpusmill-line-labeller") or not (model_dir / "config.json").exists()
    return ChunkRefinementConfig(backend="labeller" if labeller else "transformers", model=str(model_dir))


def evaluate_pages(
    refiner: ChunkRefiner, pages: Sequence[LabelledPage], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Returns the same as `evaluate` for a refiner in memory.

    Args:
        refiner: Any chunk refiner.
        pages: Labelled pages.
        clock: Seconds; a parameter so that tests need no real time.
    """
    results, seconds = [], 0.0
    for page in pages:
        result, spent = _run_page(refiner, page, clock)
        results.append(result)
        seconds += spent
    n_programs = sum(result.n_programs for result in results)
    validity = sum(result.n_valid for result in results) / n_programs if n_programs else 1.0
    chosen = [i for i, page in enumerate(pages) if page.tier == JUDGE_TIER] or list(range(len(pages)))
    return {
        **_scores(pages, results, chosen),
        "validity": validity,
        "validity_free": validity,
        "docs_per_s": len(pages) / seconds if seconds > 0 else 0.0,
        "all": _scores(pages, results, list(range(len(pages)))),
    }


def remove_nothing(pages: Sequence[LabelledPage]) -> LineScores:
    """Returns the micro scores of a refiner that leaves every page as it is: the baseline on extracted text."""
    return micro_scores(pages, [np.zeros(len(page.lines), dtype=np.bool_) for page in pages])


def _run_page(refiner: ChunkRefiner, page: LabelledPage, clock: Callable[[], float]) -> tuple[PageResult, float]:
    text = "\n".join(page.lines)
    started = clock()
    chunks = refiner.split(text)
    outputs = refiner.write_programs(chunks)
    seconds = clock() - started
    programs = [
        ChunkProgram(chunk.first_line, chunk.last_line, output.output, output.reason)
        for chunk, output in zip(chunks, outputs, strict=True)
    ]
    # the gates on whole documents are not what is measured here
    executed = execute(text, programs, ExecutionSettings("strict", min_words=0, max_removed=1.0))
    removed = np.zeros(len(page.lines), dtype=np.bool_)
    for operation in executed.operations:
        if operation.op in ("remove_lines", "remove_all") and operation.first_line is not None:
            removed[operation.first_line : (operation.last_line or 0) + 1] = True
    return PageResult(removed, len(programs), sum(_is_valid(program.output) for program in programs)), seconds


def _is_valid(output: str) -> bool:
    program = parse_program(output, "strict")
    met = program.diagnostics
    return bool(program.ops) and met.n_errors == 0 and met.n_ignored == 0 and not met.truncated


def _scores(pages: Sequence[LabelledPage], results: Sequence[PageResult], chosen: Sequence[int]) -> dict[str, Any]:
    some, removed = [pages[i] for i in chosen], [results[i].removed for i in chosen]
    return {**micro_scores(some, removed).as_dict(), "macro": macro_scores(some, removed).as_dict()}
