"""Checks one ProX conformance case: compat mode against ``expected``, strict mode against ``better``.

A case is a JSON object with the key ``stage``: ``chunk``, ``doc``, ``split``, ``merge``, ``prompt_doc`` or
``prompt_chunk``. The ids of the prompt cases need the Llama tokenizer, which cannot be shipped: they are checked where
the environment variable CORPUSMILL_LLAMA_TOKENIZER names a ``tokenizer.model``; without it a prompt case passes on its
rendered string alone.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corpusmill.prox.chunking import Chunk, join_chunks, join_outputs, split_text
from corpusmill.prox.program import Mode
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, decide_document, execute
from corpusmill.prox.prompts import render_prompt

TOKENIZER_VARIABLE = "CORPUSMILL_LLAMA_TOKENIZER"
"""Environment variable that names the Llama ``tokenizer.model`` for the ids of the prompt cases."""
DEPENDS_ON_CHUNKS = "(depends on chunk borders)"
"""Value of ``better`` in a case whose strict answer needs more than one chunk: only compat is checked."""


def check_case(case: dict[str, Any]) -> str | None:
    """Returns None where the case passed, or why it was skipped.

    Raises:
        AssertionError: The case failed; the message shows what came out and what was expected.
        KeyError: The case lacks a field.
    """
    check = _CHECKS.get(case["stage"]) if isinstance(case["stage"], str) else None
    if check is None:
        raise AssertionError(f"stage={case['stage']!r} is unknown; expected one of {sorted(_CHECKS)}")
    return check(case)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: found {_short(found)}, expected {_short(expected)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]} ({len(text)} characters)"


def _answers(case: Mapping[str, Any]) -> dict[Mode, Any]:
    """Returns the expected value by mode; where the official code crashes, compat must drop instead."""
    crashed = case["expected"] is None
    if crashed and not case.get("error"):
        raise AssertionError("expected=null stands for a crash of the official code and needs the key 'error'")
    compat = "" if crashed else case["expected"]
    return {"compat": compat, "strict": case.get("better", compat)}


def _check_chunk(case: Mapping[str, Any]) -> str | None:
    params = case.get("params", {})
    programs = [ChunkProgram(0, case["input"].count("\n"), case["program"])]
    for mode, expected in _answers(case).items():
        if mode == "strict" and expected == DEPENDS_ON_CHUNKS:
            continue
        settings = ExecutionSettings(
            mode,
            min_kept=params.get("threshold_1", 0.0),
            max_removed=params.get("threshold_2", 0.95),
            max_errors=params.get("error_op", 2),
        )
        result = execute(case["input"], programs, settings)
        _expect(f"text in {mode} mode", result.text, expected)
        if not result.reason:
            raise AssertionError(f"no reason code in {mode} mode")
        if mode == "compat" and "errors" in case:
            _expect("errors in compat mode", result.n_errors, case["errors"])
    return None


def _check_doc(case: Mapping[str, Any]) -> str | None:
    for mode, expected in _answers(case).items():
        kept, _ = decide_document(case["program"], mode)
        _expect(f"text in {mode} mode", case["input"] if kept else "", expected)
    return None


def _check_split(case: Mapping[str, Any]) -> str | None:
    chunks = split_text(case["input"], lambda line: len(line.split()), case["params"]["max_token"])
    _expect("chunks", ["\n".join(chunk.numbered()) for chunk in chunks], case["expected"])
    _expect("text put together again", join_chunks(chunks), case["input"])
    return None


def _check_merge(case: Mapping[str, Any]) -> str | None:
    _expect("programs", join_outputs(case["input"], case["program"]), case["expected"])
    return None


def _check_prompt(case: Mapping[str, Any]) -> str | None:
    _expect("prompt", "<s>" + render_prompt(case["input"]), case["expected"])
    ids = case["ids"]
    if not isinstance(ids, list) or not ids:
        raise AssertionError(f"ids={ids!r}: a prompt case holds the official ids")
    tokenizer = os.environ.get(TOKENIZER_VARIABLE)
    if tokenizer:
        _expect("ids", _prompt_ids(case, Path(tokenizer)), ids)
    return None


def _prompt_ids(case: Mapping[str, Any], tokenizer: Path) -> list[int]:
    from corpusmill.prox.prompt_tokenizer import load_tokenizer

    encoder = load_tokenizer(tokenizer.parent).encoder
    if case["stage"] == "prompt_doc":
        return encoder.document_ids(case["input"], "compat", 2000)[0]
    _, *lines, _ = case["input"].split("\n")  # "[doc]", numbered lines, "[/doc]"
    chunk = Chunk(0, tuple(line.removeprefix(f"[{number:03d}]") for number, line in enumerate(lines)))
    return encoder.chunk_ids([encoder.encode(line) for line in lines], chunk, "compat")


_CHECKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "chunk": _check_chunk,
    "doc": _check_doc,
    "split": _check_split,
    "merge": _check_merge,
    "prompt_doc": _check_prompt,
    "prompt_chunk": _check_prompt,
}
