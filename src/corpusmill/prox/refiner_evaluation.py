"""Measures a refiner on labelled files, through the same parser and executor that the product runs.

Chunk refiners: every page becomes a text, the refiner splits it and writes programs, the executor runs them, and
the lines that went are compared with the labels. So a wrong line number or a malformed call costs quality here as it
does in production. Document refiners: decisions and margins against verdicts (`document_evaluation`). What is measured
follows from the file: labelled pages, chunk examples, judged documents or document examples. Time is measured around
the refiner's own work; reading the file and loading the model are not counted.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.errors import ConfigError
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.document_evaluation import (
    document_agreement,
    evaluate_documents,
    holds_documents,
    read_documents,
)
from corpusmill.prox.labelled_pages import LabelledPage, read_labelled_pages
from corpusmill.prox.line_scores import LineScores, macro_scores, micro_scores
from corpusmill.prox.program import Mode
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.refiner import ChunkOutput, ChunkRefiner, load_chunk_refiner, load_doc_refiner

JUDGE_TIER = "human"
"""Tier whose scores stand at the top level: labels made by people or by a parser written for the site."""
PAGES_PER_CALL = 64
"""Pages whose chunks are given to a refiner at once, so that a model that fills batches can."""
_BACKENDS = {"corpusmill-line-labeller": "labeller", "corpusmill-program-writer": "writer"}
"""Backend of a model folder by the beginning of ``format`` in its ``config.json``; all others: transformers."""

Model = Path | str | ChunkRefinementConfig | DocRefinementConfig
"""A model folder, a hub id, or settings (which can name any backend)."""


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


def evaluate(model: Model, file: Path, *, teacher: Path | None = None) -> dict[str, Any]:
    """Returns the scores of a model on a labelled file, as `corpusmill evaluate-refiner` prints them.

    A file of pages (``lines``, ``remove``, ``unsure``, ``tier``) or of chunk examples (labels: the lines that the
    stored program removes) measures a chunk refiner. ``keep_f1``, ``char_f1``, ``remove_f1``: micro over pages of tier
    "human" (over all pages where the file has none); ``macro``: the same, mean over pages; ``all``: micro over all
    tiers, with its own ``macro``. All of them at the settings' own decoding. ``validity``: share of programs that parse
    whole and without error when decoded under the grammar (None where the backend cannot); ``validity_free``: the same
    without a grammar, measured in a run of its own. A labeller writes its programs from labels, so both are the same
    there. ``docs_per_s``: pages a second, features included.

    A file of judged documents (``text``, ``label``) or of document examples measures a document refiner: see
    `corpusmill.prox.document_evaluation.evaluate_documents`.

    Args:
        model: Model folder or hub id, its backend chosen by the folder's ``config.json``; or settings.
        file: JSON lines, plain or gzip.
        teacher: Another file with labels for the same pages or texts; then ``agreement`` holds the scores against it.

    Raises:
        ConfigError: The settings are of the other stage than the file.
        ModelError: The model cannot be loaded.
        PermanentDataError: A file is not in the format.
    """
    if holds_documents(file):
        return _evaluate_documents(model, file, teacher)
    settings = model if isinstance(model, ChunkRefinementConfig) else chunk_settings(_place(model, file, "chunk"))
    pages = read_labelled_pages(file)
    refiner = load_chunk_refiner(settings)
    timed, seconds = _timed(refiner, pages, time.perf_counter, settings.execution_mode)
    quality = _quality(pages, timed, seconds)
    other = _other_decoding(settings, pages, quality["validity"])
    quality["validity"], quality["validity_free"] = (
        (quality["validity"], other) if settings.is_constrained else (other, quality["validity"])
    )
    if teacher is not None:
        quality["agreement"] = agreement(pages, [result.removed for result in timed], read_labelled_pages(teacher))
    return quality


def evaluate_pages(
    refiner: ChunkRefiner, pages: Sequence[LabelledPage], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Returns the same as `evaluate` for a refiner in memory; both validities are those of the one way it decodes.

    Args:
        refiner: Any chunk refiner.
        pages: Labelled pages.
        clock: Seconds; a parameter so that tests need no real time.
    """
    return _quality(pages, *_timed(refiner, pages, clock))


def run_pages(refiner: ChunkRefiner, pages: Sequence[LabelledPage], mode: Mode = "strict") -> list[PageResult]:
    """Returns what a chunk refiner does to each page, its programs parsed and executed in a mode."""
    return _timed(refiner, pages, time.perf_counter, mode)[0]


def agreement(
    pages: Sequence[LabelledPage], removed: Sequence[npt.NDArray[np.bool_]], teacher: Sequence[LabelledPage]
) -> dict[str, Any]:
    """Returns the micro scores of removals against a teacher's labels, on the pages with the same lines.

    Args:
        pages: Pages that were refined.
        removed: Which of their lines went.
        teacher: The teacher's pages, in any order.

    Raises:
        ConfigError: The teacher labelled none of the pages.
    """
    taught = {page.lines: page for page in teacher}
    common = [i for i, page in enumerate(pages) if page.lines in taught]
    if not common:
        raise ConfigError(
            f"teacher: none of its {len(teacher)} pages has the lines of one of the {len(pages)} measured pages; "
            "expected labels for the same texts"
        )
    return micro_scores([taught[pages[i].lines] for i in common], [removed[i] for i in common]).as_dict()


def gate(quality: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[str]:
    """Returns what a model fails, one sentence a threshold; empty where it passes.

    Args:
        quality: What `evaluate` returned.
        thresholds: Smallest value by name; a dot steps into a nested object: ``keep_f1``, ``all.keep_f1``.
    """
    failures = []
    for name, least in thresholds.items():
        value: Any = quality
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            failures.append(f"{name} was not measured, expected at least {least}")
        elif not value >= least:  # not a number fails too
            failures.append(f"{name} is {value:.4g}, expected at least {least}")
    return failures


def chunk_settings(model: Path | str) -> ChunkRefinementConfig:
    """Returns the chunk stage's settings for a model folder or hub id, its backend by the folder's config."""
    return ChunkRefinementConfig.model_validate({"backend": _backend(model), "model": str(model)})


def doc_settings(model: Path | str) -> DocRefinementConfig:
    """Returns the document stage's settings for a model folder or hub id, its backend by the folder's config."""
    return DocRefinementConfig.model_validate({"backend": _backend(model), "model": str(model)})


def remove_nothing(pages: Sequence[LabelledPage]) -> LineScores:
    """Returns the micro scores of a refiner that leaves every page as it is: the baseline on extracted text."""
    return micro_scores(pages, [np.zeros(len(page.lines), dtype=np.bool_) for page in pages])


def _evaluate_documents(model: Model, file: Path, teacher: Path | None) -> dict[str, Any]:
    settings = model if isinstance(model, DocRefinementConfig) else doc_settings(_place(model, file, "document"))
    documents = read_documents(file)
    decisions, seconds = [], 0.0
    refiner = load_doc_refiner(settings)
    for start in range(0, len(documents), PAGES_PER_CALL):
        texts = [document.text for document in documents[start : start + PAGES_PER_CALL]]
        started = time.perf_counter()
        decisions += refiner.decide(texts)
        seconds += time.perf_counter() - started
    quality = evaluate_documents(documents, decisions)
    quality["docs_per_s"] = len(documents) / seconds if seconds > 0 else 0.0
    if teacher is not None:
        quality["agreement"] = document_agreement(documents, decisions, read_documents(teacher))
    return quality


def _place(model: Model, file: Path, stage: str) -> Path | str:
    if isinstance(model, Path | str):
        return model
    raise ConfigError(
        f"{file.name} measures a {stage} refiner, but the settings are a {type(model).__name__}; give a file of the "
        "other stage, or that stage's settings"
    )


def _backend(model: Path | str) -> str:
    folder = Path(model).expanduser()
    if (folder / "script.json").is_file():
        return "scripted"
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("format", "")
    except (OSError, ValueError, AttributeError):
        # a folder without a readable config: the loader of our own models says what is missing
        return "labeller" if folder.is_dir() or folder.is_absolute() else "transformers"
    return next((backend for start, backend in _BACKENDS.items() if str(kind).startswith(start)), "transformers")


def _other_decoding(settings: ChunkRefinementConfig, pages: Sequence[LabelledPage], validity: float) -> float | None:
    """Returns the validity with the grammar where the settings have none, and without it where they have one."""
    if settings.backend in ("labeller", "scripted"):
        return validity
    other = settings.model_copy(update={"constrained": not settings.is_constrained})
    try:
        refiner = load_chunk_refiner(other)
    except ConfigError:  # a server or an engine that knows no grammar of ours
        return None
    return _validity(run_pages(refiner, pages, settings.execution_mode))


def _timed(
    refiner: ChunkRefiner, pages: Sequence[LabelledPage], clock: Callable[[], float], mode: Mode = "strict"
) -> tuple[list[PageResult], float]:
    results: list[PageResult] = []
    seconds = 0.0
    for start in range(0, len(pages), PAGES_PER_CALL):
        some = pages[start : start + PAGES_PER_CALL]
        started = clock()
        chunks = [refiner.split("\n".join(page.lines)) for page in some]
        outputs = iter(refiner.write_programs([chunk for page_chunks in chunks for chunk in page_chunks]))
        seconds += clock() - started
        for page, page_chunks in zip(some, chunks, strict=True):
            programs = [_program(chunk.first_line, chunk.last_line, next(outputs)) for chunk in page_chunks]
            results.append(_executed(page, programs, mode))
    return results, seconds


def _program(first_line: int, last_line: int, output: ChunkOutput) -> ChunkProgram:
    return ChunkProgram(first_line, last_line, output.output, output.reason)


def _executed(page: LabelledPage, programs: Sequence[ChunkProgram], mode: Mode) -> PageResult:
    # the gates on whole documents are not what is measured here
    executed = execute("\n".join(page.lines), programs, ExecutionSettings(mode, min_words=0, max_removed=1.0))
    removed = np.zeros(len(page.lines), dtype=np.bool_)
    for operation in executed.operations:
        if operation.op in ("remove_lines", "remove_all") and operation.first_line is not None:
            removed[operation.first_line : (operation.last_line or 0) + 1] = True
    return PageResult(removed, len(programs), sum(_is_valid(program.output, mode) for program in programs))


def _is_valid(output: str, mode: Mode) -> bool:
    program = parse_program(output, mode)
    met = program.diagnostics
    return bool(program.ops) and met.n_errors == 0 and met.n_ignored == 0 and not met.truncated


def _validity(results: Sequence[PageResult]) -> float:
    n_programs = sum(result.n_programs for result in results)
    return sum(result.n_valid for result in results) / n_programs if n_programs else 1.0


def _quality(pages: Sequence[LabelledPage], results: Sequence[PageResult], seconds: float) -> dict[str, Any]:
    validity = _validity(results)
    chosen = [i for i, page in enumerate(pages) if page.tier == JUDGE_TIER] or list(range(len(pages)))
    return {
        **_scores(pages, results, chosen),
        "validity": validity,
        "validity_free": validity,
        "docs_per_s": len(pages) / seconds if seconds > 0 else 0.0,
        "all": _scores(pages, results, list(range(len(pages)))),
    }


def _scores(pages: Sequence[LabelledPage], results: Sequence[PageResult], chosen: Sequence[int]) -> dict[str, Any]:
    some, removed = [pages[i] for i in chosen], [results[i].removed for i in chosen]
    return {**micro_scores(some, removed).as_dict(), "macro": macro_scores(some, removed).as_dict()}
