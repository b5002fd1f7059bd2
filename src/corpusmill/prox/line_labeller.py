"""The line labeller as a refiner: a probability for each line, written as a ProX program.

The labeller reads a window of lines, decides for each line whether it goes, and emits a program text
(``remove_lines(start=a, end=b)`` per range, or ``keep_chunk()``), which the same parser and executor run as any other
refiner's output. Each window is run through the network alone, so its labels never depend on what else is in a batch.

Blank lines are not seen by the network and keep their number: one is removed where the last line with text before it is
removed (at the head of a window: the next one after it), so a removed paragraph takes its separator along.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.document_features import document_features
from corpusmill.prox.document_head import DocumentHead
from corpusmill.prox.labeller_folder import load_labeller
from corpusmill.prox.line_features import LineFeatures, line_features, nonblank
from corpusmill.prox.line_network import LineNetwork, collate, one_thread
from corpusmill.prox.refiner import Chunk, ChunkOutput, DocDecision, folder_digest

_LAST_NUMBER = 999_999  # line numbers have at most six digits in the strict grammar


def line_probabilities(
    networks: LineNetwork | Sequence[LineNetwork], features: LineFeatures
) -> npt.NDArray[np.float64]:
    """Returns p(remove) for each line: the sigmoid of the networks' mean logit (float64).

    Each window goes on its own through the networks (float32), so nothing depends on what else is in a batch.

    Args:
        networks: One network, or the members of an ensemble, all of the same `NetworkShape`.
        features: Features of the lines, in order.
    """
    members = [networks] if isinstance(networks, LineNetwork) else networks
    if not features.n_lines:
        return np.zeros(0)
    shape, parts = members[0].shape, []
    with torch.inference_mode():
        for start, end in even_windows(features.n_lines, shape.max_lines):
            batch = collate([features.window(start, end)], shape.n_buckets)
            logits_MN = torch.stack([member(batch)[0].double() for member in members])
            parts.append(torch.sigmoid(logits_MN.mean(dim=0)).numpy())
    return np.concatenate(parts)


def even_windows(n_lines: int, max_lines: int) -> list[tuple[int, int]]:
    """Returns (start, end) of as few windows as possible of at most ``max_lines``, sizes differing by at most one."""
    n_windows = -(-n_lines // max_lines)
    cuts = [n_lines * i // n_windows for i in range(n_windows + 1)] if n_windows else [0]
    return list(pairwise(cuts))


def removed_lines(lines: Sequence[str], gone: Sequence[bool], kept_rows: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Returns which lines go, blank ones decided by the line before them.

    Args:
        lines: All lines of a window.
        gone: Decision for each line with text.
        kept_rows: Index in ``lines`` of each line with text, ascending.
    """
    removed = np.zeros(len(lines), dtype=np.bool_)
    if not len(kept_rows):
        return removed
    rows = np.asarray(kept_rows)
    # for every line, the last line with text at or before it; before the first one, that first one
    owner = np.maximum(np.searchsorted(rows, np.arange(len(lines)), side="right") - 1, 0)
    return np.asarray(gone, dtype=np.bool_)[owner]


def program_of(removed: Sequence[bool] | npt.NDArray[np.bool_], first_line: int) -> str:
    """Returns the program that removes the marked lines: one call a range, or ``keep_chunk()``.

    Lines past number 999,999 cannot be named in a program and stay.

    Args:
        removed: Mark for each line of a window.
        first_line: Number of the window's first line in the document, 0-based.
    """
    marks = np.concatenate([[False], np.asarray(removed, dtype=np.bool_), [False]]).astype(np.int8)
    starts, ends = np.flatnonzero(np.diff(marks) == 1), np.flatnonzero(np.diff(marks) == -1) - 1
    calls = [
        f"remove_lines(start={first_line + a}, end={min(first_line + b, _LAST_NUMBER)})"
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        if first_line + a <= _LAST_NUMBER
    ]
    return "\n".join(calls) or "keep_chunk()"


def _checked_threshold(threshold: float | None, default: float) -> float:
    if threshold is None:
        return default
    if not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold={threshold!r} is not a probability; expected 0 to 1, or None for the model's own")
    return threshold


class LabellerChunkRefiner:
    """Writes a removal program for each window of lines.

    Args:
        model_path: Model folder.
        threshold: Remove a line at this probability and above; None: the model's own threshold.
    """

    def __init__(self, model_path: Path, threshold: float | None = None) -> None:
        self.labeller = load_labeller(model_path)
        self.threshold = _checked_threshold(threshold, self.labeller.threshold)
        digest = folder_digest(model_path)
        self.model_id = f"{model_path.name}@{digest[:12]}"
        self.fingerprint = fingerprint([digest, "chunk", self.threshold])

    def split(self, text: str) -> list[Chunk]:
        """Returns as few windows as the network's longest input allows, of even size; no window for an empty text."""
        if not text:
            return []
        lines = text.split("\n")
        filled = nonblank(lines)
        windows = even_windows(len(filled), self.labeller.shape.max_lines)
        # blank lines stay with the line before them; those at the head of the text with the first one
        cuts = [0, *(filled[start] for start, _ in windows[1:]), len(lines)]
        return [Chunk(a, tuple(lines[a:b])) for a, b in pairwise(cuts)]

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one program for each window; ``n_prompt_tokens`` counts the lines that the network saw."""
        with one_thread():
            return [self._write(chunk) for chunk in chunks]

    def _write(self, chunk: Chunk) -> ChunkOutput:
        filled = nonblank(chunk.lines)
        gone = (
            line_probabilities(self.labeller.networks, line_features([chunk.lines[i] for i in filled]))
            >= self.threshold
        )
        removed = removed_lines(chunk.lines, gone.tolist(), filled)
        return ChunkOutput(program_of(removed, chunk.first_line), len(filled), truncated=False)


class LabellerDocRefiner:
    """Decides keep or drop of whole documents with the model's document head.

    Args:
        model_path: Model folder.
        threshold: Drop at this probability and above; None: the model's own threshold.

    Raises:
        ModelError: The model has no document head.
    """

    def __init__(self, model_path: Path, threshold: float | None = None) -> None:
        self.labeller = load_labeller(model_path)
        if self.labeller.document_head is None:
            raise ModelError(
                f"model {model_path.name!r} has no document head; train it with document labels, or leave the document "
                "stage out of the recipe"
            )
        self.head: DocumentHead = self.labeller.document_head
        self.threshold = _checked_threshold(threshold, self.head.threshold)
        digest = folder_digest(model_path)
        self.model_id = f"{model_path.name}@{digest[:12]}"
        self.fingerprint = fingerprint([digest, "document", self.threshold])

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision a text; ``margin`` is p(drop), ``n_prompt_tokens`` the lines that were read."""
        return [self._decide(text) for text in texts]

    def _decide(self, text: str) -> DocDecision:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        margin = self.head.p_drop(document_features(lines))
        if margin >= self.threshold:
            return DocDecision("drop", margin, "drop_doc()", len(lines), truncated=False, reason="dropped_model")
        return DocDecision("keep", margin, "keep_doc()", len(lines), truncated=False, reason="kept")
