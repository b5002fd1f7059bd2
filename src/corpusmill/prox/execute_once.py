"""Runs one program on one text: what ``corpusmill execute`` prints."""

from dataclasses import asdict
from typing import Any

from corpusmill.prox.program import Mode
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute


def execute_once(text: str, program: str, mode: Mode) -> dict[str, Any]:
    """Returns text, reason, operations and errors of one program over all lines of a text, with the default gates.

    Args:
        text: The document; only line feeds separate lines.
        program: Output of a refiner.
        mode: ``strict`` or ``compat``.
    """
    result = execute(text, [ChunkProgram(0, text.count("\n"), program)], ExecutionSettings(mode))
    return {
        "text": result.text,
        "reason": result.reason,
        "operations": [asdict(operation) for operation in result.operations],
        "errors": result.n_errors,
        "normalize_misses": result.n_normalize_misses,
        "normalize_tiny_sources": result.n_tiny_sources,
        "truncated": result.n_truncated,
        "words_before": result.n_words_before,
        "words_after": result.n_words_after,
    }
