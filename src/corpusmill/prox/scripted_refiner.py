"""A refiner with fixed answers from a file: for tests, dry runs and examples without a model.

The model is a JSON file, or a folder that holds it as ``script.json``: an object with any of these keys:

    default               output where nothing else matches ("keep_doc()" or "keep_chunk()" where absent)
    containing            {phrase: output}: the first phrase, in file order, that the text holds decides
    remove_lines_with     [phrase]: chunk stage only: each line that holds one is removed
"""

import json
from collections.abc import Sequence
from typing import Any

from corpusmill.errors import ModelError
from corpusmill.prox.chunking import Chunk, split_text
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.program import RemoveLines, render_program
from corpusmill.prox.program_execution import decide_document
from corpusmill.prox.refiner import ChunkOutput, DocDecision, ResolvedModel, resolve_model

SCRIPT = "script.json"
"""Name of the answers in a model folder."""
_KEYS = {"default": str, "containing": dict, "remove_lines_with": list}


def _read_script(resolved: ResolvedModel, model: str) -> dict[str, Any]:
    place = resolved.place
    path = place / SCRIPT if place is not None and place.is_dir() else place
    if path is None or not path.is_file():
        raise ModelError(f"model={model!r} holds no script; expected a JSON file of answers, or a folder with {SCRIPT}")
    try:
        script = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"script {path.name!r} is not JSON: {error}") from error
    if not isinstance(script, dict) or any(not isinstance(v, _KEYS.get(k, type(None))) for k, v in script.items()):
        raise ModelError(
            f"script {path.name!r} holds {str(script)[:200]!r}; expected an object with keys of {sorted(_KEYS)}"
        )
    return script


def _scripted_output(script: dict[str, Any], text: str) -> str | None:
    for phrase, output in script.get("containing", {}).items():
        if phrase in text:
            return str(output)
    default = script.get("default")
    return None if default is None else str(default)


class ScriptedDocRefiner:
    """Decides by phrases."""

    def __init__(self, config: DocRefinementConfig) -> None:
        resolved = resolve_model(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.script = _read_script(resolved, config.model)
        self.mode = config.execution_mode

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order; no margin, and words for prompt tokens."""
        decisions = []
        for text in texts:
            scripted = _scripted_output(self.script, text)
            output = "keep_doc()" if scripted is None else scripted
            kept, reason = decide_document(output, self.mode)
            decisions.append(
                DocDecision("keep" if kept else "drop", None, output, len(text.split()), truncated=False, reason=reason)
            )
        return decisions


class ScriptedChunkRefiner:
    """Writes programs by phrases."""

    def __init__(self, config: ChunkRefinementConfig) -> None:
        resolved = resolve_model(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.script = _read_script(resolved, config.model)
        self.window = config.window_tokens

    def split(self, text: str) -> list[Chunk]:
        """Returns windows whose lines have at most ``window_tokens`` words with their numbers."""
        return split_text(text, lambda line: len(line.split()), self.window)

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order."""
        return [ChunkOutput(self._output(chunk), sum(len(s.split()) for s in chunk.lines), False) for chunk in chunks]

    def _output(self, chunk: Chunk) -> str:
        phrases = self.script.get("remove_lines_with", [])
        hits = [
            chunk.first_line + offset
            for offset, line in enumerate(chunk.lines)
            if any(phrase in line for phrase in phrases)
        ]
        if hits:
            return render_program(RemoveLines(number, number) for number in hits)
        scripted = _scripted_output(self.script, "\n".join(chunk.lines))
        return "keep_chunk()" if scripted is None else scripted
