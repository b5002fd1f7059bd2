"""What the program writer is taught: histories of programs, and what should follow after each of their tokens.

With right programs only as history, the decoder learns to trust what stands there, and a range begun by mistake goes
on. So most histories are what the encoders' opinion says: the mistakes that decoding makes. What follows is always
taken from the labels: whatever stands in the program so far, the next range starts at the first line from there on that
goes, and ends before the first line that stays (a dynamic oracle; Source: arXiv 1011.0686, DAgger, here with an exact
expert). Unsure lines teach nothing. Measured on unseen domains (one fold, keep-F1 of people's pages, correction weight
1; .849 by the opinions alone): right programs .828, opinions .837 to .843, histories drawn at random by the opinions'
probabilities .789: those are mistakes that decoding never makes.

Shapes: B windows, N lines, T program tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE
from corpusmill.prox.program_tokens import Group, Word, next_group, next_scan, program_tokens

OWN_SHARE, EMPTY_SHARE = 0.9, 0.03
"""Shares of histories by the encoders' opinions, and of empty programs (few pages have nothing to remove)."""


@dataclass
class ProgramTargets:
    """Programs as inputs and targets of the decoder.

    Attributes:
        tokens: int64 (B, T), BEGIN and the program up to its last token but END.
        ends_range: bool (B, T), True where an input row ends a range.
        groups: int64 (B, T), kind of the next token; -100 past the program's end.
        stops: int64 (B, T), which stop word would follow (0 KEEP, 1 END); -100 where none could.
        scanned: bool (2, B, T, N), lines that a scan for a start (0) or for an end (1) has to judge.
        stopping: float32 (2, B, T, N), 1 where that scan should stop.
    """

    tokens: Tensor
    ends_range: Tensor
    groups: Tensor
    stops: Tensor
    scanned: Tensor
    stopping: Tensor


def drawn_history(
    labels: npt.NDArray[np.int8], opinions: npt.NDArray[np.float32], rng: np.random.Generator
) -> list[int]:
    """Returns a program to go on from: the one of the opinions, the right one, or the empty one.

    Args:
        labels: Labels of a window's lines; unsure ones follow the opinions.
        opinions: The encoders' logits; positive: remove.
        rng: Source of randomness.
    """
    kind = rng.random()
    if kind < EMPTY_SHARE:
        return program_tokens([False] * len(labels))
    own = kind < EMPTY_SHARE + OWN_SHARE
    removed = opinions > 0 if own else np.where(labels == UNSURE, opinions > 0, labels == REMOVE)
    return program_tokens(removed.tolist())


def program_targets(programs: Sequence[Sequence[int]], labels: Sequence[npt.NDArray[np.int8]]) -> ProgramTargets:
    """Returns the targets of a batch.

    Args:
        programs: Program tokens of each window, END included.
        labels: Labels of each window's lines.
    """
    n_tokens, n_lines = max(map(len, programs)), max(map(len, labels))
    shape = (len(programs), n_tokens)
    tokens = np.full(shape, int(Word.BEGIN), dtype=np.int64)
    ends_range = np.zeros(shape, dtype=np.bool_)
    groups, stops = np.full(shape, -100, dtype=np.int64), np.full(shape, -100, dtype=np.int64)
    scanned = np.zeros((2, *shape, n_lines), dtype=np.bool_)
    stopping = np.zeros((2, *shape, n_lines), dtype=np.float32)
    for b, (program, known) in enumerate(zip(programs, labels, strict=True)):
        tokens[b, 1 : len(program)] = program[:-1]
        after_middle = tokens[b, :-1] == Word.MIDDLE
        ends_range[b, 1:] = after_middle & (tokens[b, 1:] >= 0)
        first_gone, first_left = _next_index(known == REMOVE), _next_index(known == KEEP)
        for t in range(len(program)):
            before = program[:t]
            groups[b, t] = next_group(before)
            if groups[b, t] == Group.DECIDE:
                stops[b, t] = int(bool(before))
            elif groups[b, t] != Group.ROW:
                continue
            scan = next_scan(before)
            begin = min(scan.first + scan.ends_range, len(known))
            end = (first_left if scan.ends_range else first_gone)[begin]
            if before and before[-1] == Word.KEEP:
                end = len(known)  # nothing follows, whatever the labels say
            elif end < len(known):
                stopping[int(scan.ends_range), b, t, end] = 1
            judged = known[begin : end + 1] != UNSURE
            scanned[int(scan.ends_range), b, t, begin : begin + len(judged)] = judged
    return ProgramTargets(*map(torch.from_numpy, (tokens, ends_range, groups, stops, scanned, stopping)))


def _next_index(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Returns the first marked index at or after each index 0 to len(marks), len(marks) where there is none."""
    places = np.where(marks, np.arange(len(marks)), len(marks))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(marks)).astype(np.int64)
